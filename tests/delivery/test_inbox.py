import asyncio

import pytest
from sqlalchemy import text

from shared.config import ConfigError, DeliverySettings
from shared.delivery import Inbox, check_inbox_retention
from shared.errors import DatabaseError
from tests.delivery.world import World


async def accept(world: World, message_id: str, subscriber: str = "debit") -> bool:
    async with world.unit_of_work() as uow:
        return await Inbox(uow.session).accept(subscriber, message_id)


async def test_a_message_is_accepted_once_per_subscriber(world: World) -> None:
    assert await accept(world, "m-1")
    assert not await accept(world, "m-1")
    assert await accept(world, "m-2")
    assert await accept(world, "m-1", subscriber="mail")


async def test_what_rolled_back_was_not_handled(world: World) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with world.unit_of_work() as uow:
            assert await Inbox(uow.session).accept("debit", "m-1")
            raise ZeroDivisionError
    assert await accept(world, "m-1")


async def test_of_many_at_once_one_is_let_through(world: World) -> None:
    async def handle() -> None:
        async with world.unit_of_work() as uow:
            if await Inbox(uow.session).accept("debit", "m-1"):
                await uow.session.execute(text("UPDATE balances SET amount = amount - 1"))

    async with world.database.transaction() as session:
        await session.execute(text("CREATE TABLE balances (amount int)"))
        await session.execute(text("INSERT INTO balances VALUES (10)"))
    await asyncio.gather(*(handle() for _ in range(30)))
    async with world.database.transaction() as session:
        assert await session.scalar(text("SELECT amount FROM balances")) == 9


async def test_when_the_first_of_two_rolls_back_the_second_takes_over(world: World) -> None:
    async with world.unit_of_work() as first:
        assert await Inbox(first.session).accept("debit", "m-1")
        second = asyncio.create_task(accept(world, "m-1"))
        await asyncio.sleep(0)
        await first.session.rollback()
        assert await second


async def test_a_wait_that_is_too_long_is_retryable(world: World) -> None:
    async with world.unit_of_work() as first:
        assert await Inbox(first.session).accept("debit", "m-1")
        with pytest.raises(DatabaseError) as caught:  # noqa: PT012
            async with world.unit_of_work() as second:
                await second.session.execute(text("SET LOCAL lock_timeout = 20"))
                await Inbox(second.session).accept("debit", "m-1")
    assert caught.value.retryable


def test_an_inbox_that_forgets_before_its_stream_does_is_refused() -> None:
    settings = DeliverySettings(inbox_retention_hours=24)
    check_inbox_retention(settings, service="credit", stream="CREDIT", max_age_seconds=86_400)
    with pytest.raises(ConfigError, match="set at least 168"):
        check_inbox_retention(settings, service="credit", stream="CREDIT", max_age_seconds=604_800)
