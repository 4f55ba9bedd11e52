from sqlalchemy import text

from shared.config import DeliverySettings
from shared.delivery import Inbox, Janitor
from tests.delivery.world import World


async def test_what_is_past_its_retention_goes_and_nothing_else(world: World) -> None:
    await world.add(*range(2500))
    async with world.database.transaction() as session:
        await session.execute(
            text("""UPDATE outbox SET created_at = now() - interval '100 hours',
            published_at = CASE WHEN id <= 2300 THEN now() - interval '11 hours'
                                WHEN id <= 2400 THEN now() - interval '9 hours' END""")
        )
        await Inbox(session).accept("debit", "old")
        await Inbox(session).accept("debit", "new")
        await session.execute(
            text("""UPDATE inbox SET handled_at = now() - interval '21 hours'
            WHERE message_id = 'old'""")
        )
    settings = DeliverySettings(outbox_retention_hours=10, inbox_retention_hours=20)
    assert await Janitor(world.database, settings).sweep() == 2301
    assert [row.id for row in await world.rows()] == list(range(2301, 2501))
    assert await Janitor(world.database, settings).sweep() == 0
    async with world.database.transaction() as session:
        assert not await Inbox(session).accept("debit", "new")
        assert await Inbox(session).accept("debit", "old")


async def test_what_was_published_late_does_not_keep_what_is_behind_it(world: World) -> None:
    await world.add(*range(3000))
    async with world.database.transaction() as session:
        # One of seven was delayed for long; the last hundred were added just now.
        await session.execute(
            text("""UPDATE outbox SET published_at = now() - interval '11 hours' * (id % 7)::int,
            created_at = now() - interval '100 hours' * (id <= 2900)::int""")
        )
    settings = DeliverySettings(outbox_retention_hours=10)
    await Janitor(world.database, settings).sweep()
    assert [row.id for row in await world.rows() if row.id % 7] == []
    assert len(await world.rows()) == 428
