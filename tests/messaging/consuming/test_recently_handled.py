"""What was handled last is known again, and takes little."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from shared.messaging.consuming.in_flight import RecentlyHandled

KEYS = st.tuples(st.integers(0, 3) | st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))


@given(st.lists(KEYS), st.integers(1, 5), KEYS)
def test_the_last_ones_are_known_and_no_others(
    keys: list[tuple[int, int]], limit: int, other: tuple[int, int]
) -> None:
    handled = RecentlyHandled(limit)
    for key in keys:
        handled.add(key)
    for key in [*keys, other]:
        assert (key in handled) == (key in keys[-limit:])


def test_the_end_of_one_and_the_begin_of_the_next_are_none() -> None:
    handled = RecentlyHandled(3)
    handled.add((1, 2))
    handled.add((3, 4))
    assert (2, 3) not in handled
    handled.add((2, 3))
    assert (2, 3) in handled


def test_they_stop_to_grow_at_16_bytes_each() -> None:
    handled = RecentlyHandled(10_000)
    tracemalloc.start()
    try:
        sizes = []
        for part in range(3):
            for number in range(10_000):
                handled.add((part * 10_000 + number, 1_790_000_000_000_000_000 + number))
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[0] < 200_000
    assert sizes[2] <= sizes[0] + 1_000
