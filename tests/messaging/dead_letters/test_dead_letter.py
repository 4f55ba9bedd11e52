"""Dead letters on a real server: kept, listed, shown, replayed, discarded."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from shared.errors import MessageBusError, NotFoundError
from shared.messaging import Bus, DeadLetters, Delivery
from shared.messaging.consuming.delivery import REPLAY_FOR
from shared.messaging.dead_letters.dead_letter import fingerprint
from shared.testing import eventually
from tests.messaging.conftest import SUBJECT, Subscribers, message

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def delivery(*, sequence: int = 42, published_at: datetime = AT) -> Delivery:
    headers = {"X-Own": "kept", "Nats-Msg-Id": "m1", "Nats-Rollup": "all", "Nats-TTL": "1s"}
    return Delivery(SUBJECT, b"\x00\xff whole", headers, "TESTS", sequence, 5, published_at)


DELIVERY = delivery()


async def test_a_dead_letter_is_kept_whole(bus: Bus) -> None:
    letters = DeadLetters(bus)
    error = _raised(ValueError("no\ngood"))
    ack = await letters.store(
        DELIVERY, durable="tests", service="test-service", reason="poison", error=error
    )
    letter = await letters.get(ack.sequence)
    assert (letter.body, letter.headers) == (DELIVERY.body, DELIVERY.headers)
    assert (letter.subject, letter.stream, letter.stream_sequence) == (SUBJECT, "TESTS", 42)
    assert (letter.durable, letter.service, letter.attempts) == ("tests", "test-service", 5)
    assert (letter.reason, letter.error_message) == ("poison", "no good")
    assert letter.error_type == "builtins.ValueError"
    assert letter.fingerprint == fingerprint(error)
    assert letter.at.tzinfo is not None


async def test_the_stream_keeps_them_by_limits_for_thirty_days(bus: Bus) -> None:
    await DeadLetters(bus).list()
    config = (await bus.js.stream_info("DEAD_LETTERS")).config
    assert (config.subjects, config.retention) == (["dlq.>"], "limits")
    assert config.max_age == 30 * 24 * 3600


async def test_storing_twice_keeps_one(bus: Bus) -> None:
    letters = DeadLetters(bus)
    for _ in range(2):
        await letters.store(DELIVERY, durable="tests", service="s", reason="r")
    assert len(await letters.list()) == 1
    await letters.store(DELIVERY, durable="others", service="s", reason="r")
    later = delivery(published_at=datetime.now(UTC))
    await letters.store(later, durable="tests", service="s", reason="r")
    assert len(await letters.list()) == 3


@pytest.mark.parametrize("since", [(2, 11), (99, 0)])
async def test_the_list_is_read_in_pages_oldest_first_on_older_servers_as_well(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, since: tuple[int, int]
) -> None:
    monkeypatch.setattr("shared.messaging.dead_letters.direct_get._MANY_SINCE", since)
    letters = DeadLetters(bus)
    assert await letters.list() == []
    for number in range(5):
        await letters.store(
            delivery(sequence=number), durable="tests", service="s", reason=str(number)
        )
    first = await letters.list(limit=3)
    second = await letters.list(limit=3, after=first[-1].sequence)
    assert [letter.reason for letter in [*first, *second]] == ["0", "1", "2", "3", "4"]


async def test_what_filled_a_message_to_the_brim_fits_among_the_dead(
    bus: Bus, subscribers: Subscribers
) -> None:
    async def handler(_: Delivery) -> None:
        raise ValueError("x" * 100_000)

    subscribers.start(bus, handler)
    room = bus.client.max_payload - 8 * 1024 - 200
    await bus.publisher.publish(message(1, body=b"b" * room))
    (letter,) = await eventually(DeadLetters(bus).list)
    assert letter.body == b"b" * room


async def test_a_replay_reaches_the_handler_that_failed_and_no_other(
    bus: Bus, subscribers: Subscribers
) -> None:
    mended = False
    failing: list[Delivery] = []
    other: list[Delivery] = []

    async def fails(delivery: Delivery) -> None:
        failing.append(delivery)
        if not mended:
            raise RuntimeError("broken")

    async def works(delivery: Delivery) -> None:
        other.append(delivery)

    subscribers.start(bus, fails, durable="failing")
    subscribers.start(bus, works, durable="other")
    await bus.publisher.publish(message(1))
    letters = DeadLetters(bus)
    (letter,) = await eventually(letters.list)
    mended = True
    ack = await letters.replay(letter.sequence)
    assert not ack.duplicate
    await eventually(lambda: len(failing) == 4)
    replayed = failing[-1]
    assert (replayed.body, replayed.sequence, replayed.attempt) == (b"1", ack.sequence, 1)
    assert replayed.headers["X-Number"] == "1"
    assert replayed.headers[REPLAY_FOR] == "failing"
    assert await letters.list() == []

    async def passed_over() -> bool:
        info = await bus.js.consumer_info("TESTS", "other")
        return info.ack_floor.stream_seq == ack.sequence  # type: ignore[no-any-return]

    await eventually(passed_over)
    assert [delivery.sequence for delivery in other] == [1]


async def test_a_replay_that_cannot_be_published_keeps_the_dead_letter(bus: Bus) -> None:
    letters = DeadLetters(bus)
    ack = await letters.store(DELIVERY, durable="tests", service="s", reason="r")
    await bus.js.delete_stream("TESTS")
    with pytest.raises(MessageBusError):
        await letters.replay(ack.sequence)
    assert len(await letters.list()) == 1


async def test_a_replay_interrupted_before_the_removal_is_deduped(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = DeadLetters(bus)
    ack = await letters.store(DELIVERY, durable="tests", service="s", reason="r")

    async def crash(_: int) -> None:
        raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr(letters, "_remove", crash)
        with pytest.raises(KeyError):
            await letters.replay(ack.sequence)
    assert (await letters.replay(ack.sequence)).duplicate
    assert (await bus.js.stream_info("TESTS")).state.messages == 1


async def test_discarding_removes_it_and_logs_why(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    letters = DeadLetters(bus)
    ack = await letters.store(DELIVERY, durable="tests", service="s", reason="r")
    await letters.discard(ack.sequence, "obsolete order")
    assert await letters.list() == []
    assert "obsolete order" in caplog.text
    for action in (letters.get, letters.replay):
        with pytest.raises(NotFoundError):
            await action(ack.sequence)
    assert logging.WARNING in {record.levelno for record in caplog.records}


async def test_a_deleted_stream_of_dead_letters_is_made_anew(bus: Bus) -> None:
    letters = DeadLetters(bus)
    await letters.store(DELIVERY, durable="tests", service="s", reason="r")
    await bus.js.delete_stream("DEAD_LETTERS")
    await letters.store(DELIVERY, durable="tests", service="s", reason="r")
    assert len(await letters.list()) == 1


def test_a_fingerprint_tells_roads_apart_and_not_messages() -> None:
    assert fingerprint(_raised(ValueError("1"))) == fingerprint(_raised(ValueError("2")))
    assert fingerprint(_raised(ValueError("1"))) != fingerprint(_raised(KeyError("1")))


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as raised:
        return raised
