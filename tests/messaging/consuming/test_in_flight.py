"""A message's states and their table, over any order of events; no server is asked."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messaging import MessageState
from shared.messaging.consuming.delivery import AckSubject
from shared.messaging.consuming.in_flight import TRANSITIONS, InFlight, InFlightMessage

ENDS = {MessageState.ACKNOWLEDGED, MessageState.GIVEN_BACK, MessageState.DEAD_LETTERED}
KEYS = range(4)
# What may befall one of a few messages, in any order; what cannot happen to it then is left out.
SAID = {
    "acknowledged": MessageState.ACKNOWLEDGED,
    "dead-lettered": MessageState.DEAD_LETTERED,
    "paused": MessageState.PAUSED,
}
HAPPENINGS = [
    "delivered",
    "begun",
    *SAID,
    "given back",
    "stood still",
    "through",
    "draining",
]
EVENTS = st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.sampled_from(KEYS)), max_size=60)


def ack(sequence: int, attempt: int = 1) -> AckSubject:
    return AckSubject("S", "tests", attempt, sequence, sequence, sequence, 0)


def message(sequence: int, attempt: int = 1) -> InFlightMessage:
    return InFlightMessage("evt.tests.x", b"", {}, ack(sequence, attempt), f"ack.{sequence}")


class Watched(InFlightMessage):
    """A message that keeps the states it went through."""

    __slots__ = ("went",)

    def __init__(self, sequence: int, attempt: int) -> None:
        super().__init__("evt.tests.x", b"", {}, ack(sequence, attempt), f"ack.{sequence}")
        self.went = [self.state]

    def move(self, state: MessageState) -> bool:
        moved = super().move(state)
        if moved:
            self.went.append(self.state)
        return moved


class World:
    """A subscriber's table, and every message that was ever in it."""

    def __init__(self) -> None:
        self.in_flight = InFlight(30)
        self.all: list[Watched] = []
        self.here: dict[int, Watched] = {}

    def delivered(self, key: int) -> None:
        attempt = 1 + sum(each.sequence == key for each in self.all)
        if self.in_flight.came_again((key, key), ack(key, attempt), "ack.again"):
            return
        arrived = Watched(key, attempt)
        self.all.append(arrived)
        if self.in_flight.add(arrived):
            self.here[key] = arrived
        else:
            arrived.move(MessageState.ACKNOWLEDGED)

    def happens(self, event: str, key: int) -> None:
        if event == "delivered":
            self.delivered(key)
        elif event == "draining":
            for each in self.in_flight.take_unbegun():
                self.in_flight.give_back_at(each, 0)
        elif (found := self.here.get(key)) and self.in_flight.get((key, key)) is found:
            self.befalls(event, found)

    def befalls(self, event: str, found: Watched) -> None:
        if event == "begun" and found.state is MessageState.WAITING:
            self.in_flight.begin(found)
        elif event == "stood still":
            found.heartbeat_at -= 60
        elif event == "given back":
            self.in_flight.give_back_at(found, 1)
        elif event == "through" and found.state is not MessageState.PAUSED:
            self.in_flight.finish(found)
        elif event in SAID and found.state is MessageState.RUNNING:
            found.move(SAID[event])

    def end(self) -> None:
        for each in self.in_flight:
            self.in_flight.give_back_at(each, 0)
            self.in_flight.finish(each)


@given(EVENTS)
def test_every_message_ends_once_whatever_happens_in_whatever_order(
    events: list[tuple[str, int]],
) -> None:
    world = World()
    for event, key in events:
        world.happens(event, key)
    world.end()
    assert len(world.in_flight) == 0
    for each in world.all:
        assert [state for state in each.went if state in ENDS] == [each.state]
        assert all(after in TRANSITIONS[before] for before, after in pairwise(each.went))


@given(EVENTS)
def test_what_was_handled_is_not_handled_again(events: list[tuple[str, int]]) -> None:
    world = World()
    over: set[int] = set()
    for event, key in events:
        known = key in over
        before = len(world.all)
        world.happens(event, key)
        if known and event == "delivered" and len(world.all) > before:
            assert world.all[-1].state is MessageState.ACKNOWLEDGED
        over |= {each.sequence for each in world.all if each.over and each in world.here.values()}


def test_the_table_has_three_ends_and_a_way_to_them_from_everywhere() -> None:
    assert set(TRANSITIONS) == set(MessageState)
    assert {state for state, following in TRANSITIONS.items() if not following} == ENDS
    for following in (TRANSITIONS[state] for state in set(MessageState) - ENDS):
        assert MessageState.GIVEN_BACK in following


@pytest.mark.parametrize("end", sorted(ENDS))
def test_what_is_said_of_a_message_that_has_ended_is_passed_over(end: MessageState) -> None:
    ended = message(1)
    assert ended.move(end)
    for state in MessageState:
        assert not ended.move(state)
    assert ended.state is end


def test_a_way_that_is_not_in_the_table_is_refused() -> None:
    waiting = message(1)
    with pytest.raises(RuntimeError, match="no message goes from waiting to paused"):
        waiting.move(MessageState.PAUSED)


def test_a_message_that_comes_again_while_it_is_handled_goes_on_under_its_new_delivery() -> None:
    in_flight = InFlight(30)
    first = message(7)
    assert in_flight.add(first)
    assert in_flight.begin(first)
    assert in_flight.came_again(first.key, ack(7, attempt=2), "ack.new")
    assert (first.attempt, first.reply, first.redelivered) == (2, "ack.new", True)
    assert len(in_flight) == 1


def test_what_this_process_slept_through_is_left_to_the_replica_that_has_it() -> None:
    in_flight = InFlight(ack_wait_seconds=30)
    late = message(1)
    in_flight.add(late)
    late.heartbeat_at -= 31
    assert not in_flight.begin(late)
    assert late.state is MessageState.GIVEN_BACK
    assert not list(in_flight.need_heartbeat())
