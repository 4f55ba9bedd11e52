import asyncio

from hypothesis import given
from hypothesis import strategies as st

from shared.resilience import backoff_seconds
from shared.resilience.backoff import set_within


def test_it_doubles_up_to_its_cap() -> None:
    waits = [backoff_seconds(n, first=1.0, longest=30.0) for n in range(1, 8)]
    assert waits == [1, 2, 4, 8, 16, 30, 30]


@given(
    attempt=st.integers(-5, 100_000),
    first=st.floats(0.001, 100),
    factor=st.floats(1, 10),
    low=st.floats(0, 1),
    more=st.floats(0, 1),
)
def test_a_spread_keeps_it_within_its_bounds(
    attempt: int, first: float, factor: float, low: float, more: float
) -> None:
    nominal = backoff_seconds(attempt, first=first, longest=500.0, factor=factor)
    assert first <= nominal <= 500.0
    wait = backoff_seconds(
        attempt, first=first, longest=500.0, factor=factor, spread=(low, low + more)
    )
    assert nominal * low - 1e-9 <= wait <= nominal * (low + more) + 1e-9


async def test_an_event_is_waited_for_and_no_longer_than_so() -> None:
    event = asyncio.Event()
    assert not await set_within(event, 0.01)
    asyncio.get_running_loop().call_soon(event.set)
    assert await set_within(event, 3600)
