"""Whatever publish middleware does with what a relay sends, fences and counts hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shared.delivery.relay.fences import Fences
from shared.delivery.relay.pending import Pending
from shared.delivery.relay.sender import Sender
from shared.errors import MessageBusError, ValidationError
from shared.messaging import OutgoingMessage, PubAck, PublishNext
from tests.delivery.world import COUNTED, STREAM

if TYPE_CHECKING:
    from sqlalchemy import Row

    from tests.delivery.world import World


def pending(row: Row[Any], token: int) -> Pending:
    return Pending(
        row.id,
        row.event_id,
        row.subject,
        row.key,
        row.message_id,
        row.headers,
        row.body,
        row.created_at,
        0,
        0,
        token,
    )


async def rival_takes_over(world: World) -> None:
    rival = Fences(world.bus, outbox="tests", owner="rival")
    features = await rival.features(COUNTED.subject)
    assert features is not None
    await rival.raise_for(features, [(0, 2)])


@pytest.mark.parametrize("step", ["keeps the first back", "tries again"])
async def test_no_step_lets_a_relay_that_lost_its_lease_publish(world: World, step: str) -> None:
    async def keeping(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        if message.message_id == rows[0].message_id:
            await rival_takes_over(world)
            return PubAck(STREAM, 0)
        return await call_next(message)

    async def trying_again(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        if message.message_id == rows[0].message_id:
            await rival_takes_over(world)
        try:
            return await call_next(message)
        except MessageBusError:
            return await call_next(message)

    await world.add(1, 2, 3, key="a")
    rows = [pending(row, token=1) for row in await world.rows()]
    publisher = world.bus.publisher.with_middleware(
        keeping if step == "keeps the first back" else trying_again
    )
    fences = Fences(world.bus, outbox="tests", owner="late")
    receipt = await Sender(publisher, fences=fences).send(rows)
    assert await world.numbers() == []
    assert receipt.refused


async def test_a_step_that_fails_for_the_first_message_fails_no_other(world: World) -> None:
    async def refusing(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        if message.message_id == rows[0].message_id:
            raise ValidationError("not this one")
        return await call_next(message)

    for n in (1, 2, 3):
        await world.add(n, key=f"k{n}")
    rows = await world.rows()
    relay = world.relay(world.bus.publisher.with_middleware(refusing))
    assert not await relay.drain()
    rows = await world.rows()
    assert [row.attempts for row in rows] == [1, 0, 0]
    assert [row.published_at is not None for row in rows] == [False, True, True]
