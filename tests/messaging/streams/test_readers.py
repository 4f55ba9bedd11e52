"""Who reads a subject, by what the server keeps of its consumers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from nats.js.api import ConsumerConfig
from pydantic import BaseModel, create_model

from shared.contracts import Reader, Verdict
from shared.events import Contract
from shared.messaging import Subscription, find_consumers
from shared.messaging.streams.consumers import ensure_consumer

if TYPE_CHECKING:
    from shared.messaging import Bus, Delivery


class Happened(BaseModel):
    amount: int


class Renamed(BaseModel):
    cents: int


SUBJECT = "evt.tests.happened"


async def ignore(delivery: Delivery) -> None: ...


def reading(contract: Contract[Happened], durable: str = "till") -> Reader:
    return Reader.of(contract, service="till-service", durable=durable)


async def subscribe(bus: Bus, reader: Reader) -> None:
    subscription = Subscription(
        SUBJECT, reader.durable, ignore, stream="TESTS", metadata=reader.metadata()
    )
    await ensure_consumer(bus, subscription)


async def test_a_consumer_on_the_server_says_what_it_reads(bus: Bus) -> None:
    reader = reading(Contract(SUBJECT, Happened))
    await subscribe(bus, reader)
    (consumer,) = await find_consumers(bus, SUBJECT)
    assert (consumer.name, consumer.stream) == ("till", "TESTS")
    assert Reader.parse(consumer.metadata) == reader


async def test_a_new_version_takes_the_place_of_what_was_said_and_of_nothing_else(bus: Bus) -> None:
    config = ConsumerConfig(durable_name="till", filter_subject=SUBJECT, metadata={"team": "money"})
    await bus.js.add_consumer("TESTS", config)
    await subscribe(bus, reading(Contract(SUBJECT, Happened)))
    newer = Contract(SUBJECT, Happened, version=2)
    newer.upcast(1, dict)
    await subscribe(bus, reading(newer))
    (consumer,) = await find_consumers(bus, SUBJECT)
    assert consumer.metadata["team"] == "money"
    assert Reader.parse(consumer.metadata) == reading(newer)


async def test_a_schema_that_is_too_large_is_left_out_and_its_hash_is_not(bus: Bus) -> None:
    large = create_model("Large", **{f"field_{'x' * 40}_{n}": (int, ...) for n in range(2000)})  # type: ignore[call-overload]
    await subscribe(bus, reading(Contract(SUBJECT, Happened)))
    await subscribe(bus, Reader.of(Contract(SUBJECT, large), service="s", durable="till"))
    (consumer,) = await find_consumers(bus, SUBJECT)
    reader = Reader.parse(consumer.metadata)
    assert reader is not None
    assert reader.schema is None
    assert reader.impact(Contract(SUBJECT, large)).verdict is Verdict.SAME
    assert reader.impact(Contract(SUBJECT, Happened)).verdict is Verdict.UNKNOWN


async def test_schemas_as_large_as_they_may_be_are_taken_by_the_server(bus: Bus) -> None:
    model = create_model("Large", **{f"field_{'x' * 40}_{n}": (int, ...) for n in range(400)})  # type: ignore[call-overload]
    reader = Reader.of(Contract(SUBJECT, model), service="s", durable="till")
    assert 40_000 < len(reader.metadata()["glam.schema"]) <= 65_536
    await subscribe(bus, reader)
    (consumer,) = await find_consumers(bus, SUBJECT)
    assert Reader.parse(consumer.metadata) == reader


async def test_consumers_are_found_beyond_the_first_page(bus: Bus) -> None:
    for number in range(260):
        config = ConsumerConfig(
            durable_name=f"c{number:03}",
            filter_subject="evt.tests.other",
            mem_storage=True,
        )
        await bus.js.add_consumer("TESTS", config)
    await bus.js.add_consumer("TESTS", ConsumerConfig(durable_name="z", filter_subject="evt.*.>"))
    await bus.js.add_consumer("TESTS", ConsumerConfig(durable_name="all"))
    assert [each.name for each in await find_consumers(bus, SUBJECT)] == ["all", "z"]
    assert len(await find_consumers(bus, "evt.tests.other")) == 262
    assert await find_consumers(bus, "evt.nowhere.x") == ()


def test_verdicts() -> None:
    one, two = Contract(SUBJECT, Happened), Contract(SUBJECT, Happened, version=2)
    renamed = Contract(SUBJECT, Renamed, version=2)
    assert reading(one).impact(one).verdict is Verdict.SAME
    assert reading(one).impact(two).verdict is Verdict.FITS
    broken = reading(one).impact(renamed)
    assert broken.verdict is Verdict.BREAKS
    assert broken.reasons == ("amount is required, and may be missing",)
    assert reading(two).impact(one).verdict is Verdict.BREAKS
    two.upcast(1, dict)
    assert reading(two).impact(one).verdict is Verdict.FITS


@pytest.mark.parametrize("metadata", [{}, {"glam.version": "x"}, {"_nats.level": "0"}])
def test_what_does_not_say_what_it_reads_is_no_reader(metadata: dict[str, str]) -> None:
    assert Reader.parse(metadata) is None
