"""What became of a row."""

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, text

from shared.context import Context, bind
from shared.database import Database, Repository, bind_session, create_history, drop_history
from shared.errors import ConflictError
from tests.database.models import Account, Stock
from tests.database.orders import OTHER, SHOP


def account(**values: object) -> Account:
    return Account(**{"id": 1, "merchant_id": SHOP, "merchant_domain": "d"} | values)


async def test_every_change_is_kept_with_who_and_in_which_trace(database: Database) -> None:
    accounts = Repository(Account, database.session_factory)
    ada = Context.start(user_id="ada")
    with bind(ada):
        await accounts.save(account())
        await accounts.update_many({"credits": 5}, id=1)
        await accounts.update_many({"credits": 5}, id=1)  # which changes nothing
    bob = Context.start(user_id="bob", tenant_id=str(SHOP))
    with bind(bob):
        await accounts.upsert_many([account(credits=6)], conflict=["id"])
    async with database.transaction() as session:
        await session.execute(text("UPDATE accounts SET credits = 7"))
    with bind(Context.start()):
        await accounts.delete_by_id(1)
    changes = await accounts.history_of(1)
    told = [
        (
            change.operation,
            change.before and change.before["credits"],
            change.after and change.after["credits"],
            change.changed_by,
        )
        for change in reversed(changes)
    ]
    assert told == [
        ("insert", None, 0, "ada"),
        ("update", 0, 5, "ada"),
        ("update", 5, 6, "bob"),
        ("update", 6, 7, None),
        ("delete", 7, None, None),
    ]
    assert [change.trace_id for change in reversed(changes)][:4] == [
        ada.trace.trace_id,
        ada.trace.trace_id,
        bob.trace.trace_id,
        None,
    ]
    times = [change.changed_at for change in changes]
    assert times == sorted(times, reverse=True)
    assert changes[-1].after == {
        "id": 1,
        "credits": 0,
        "merchant_id": str(SHOP),
        "merchant_domain": "d",
    }
    assert len(await accounts.history_of(1, limit=2)) == 2
    assert await accounts.history_of(2) == []


async def test_the_author_is_told_again_after_a_savepoint_is_undone(database: Database) -> None:
    accounts = Repository(Account, database.session_factory)
    with bind(Context.start(user_id="ada")):
        async with database.transaction() as session:
            with bind_session(session):
                with pytest.raises(ConflictError):
                    await accounts.insert_many([account(), account()])
                await accounts.save(account())
                await accounts.copy([account(id=2)])
                await accounts.update_each([{"id": 2, "credits": 1}])
    async with database.transaction() as session:
        await session.execute(text("UPDATE accounts SET credits = 3"))
    kept = await accounts.history_of(1) + await accounts.history_of(2)
    assert [change.changed_by for change in kept] == [None, "ada", None, "ada", "ada"]


async def test_a_merchant_sees_the_history_of_its_own_rows(database: Database) -> None:
    accounts = Repository(Account, database.session_factory)
    await accounts.save(account(merchant_id=OTHER))
    await accounts.update_many({"merchant_id": SHOP}, id=1)
    await accounts.update_many({"credits": 1}, id=1)
    mine = Repository(Account, database.session_factory, merchant_id=SHOP)
    assert [change.after and change.after["credits"] for change in await mine.history_of(1)] == [1]
    theirs = Repository(Account, database.session_factory, merchant_id=OTHER)
    assert [change.operation for change in await theirs.history_of(1)] == ["insert"]


async def test_a_change_that_is_undone_is_not_kept(database: Database) -> None:
    accounts = Repository(Account, database.session_factory)
    with pytest.raises(RuntimeError):  # noqa: PT012
        async with database.transaction() as session:
            session.add(account())
            await session.flush()
            raise RuntimeError
    assert await accounts.history_of(1) == []


async def test_a_migration_makes_the_history_and_ends_it(database: Database) -> None:
    def begin(connection: Connection) -> None:
        op = Operations(MigrationContext.configure(connection))
        create_history(op, "readings", key=("device", "at"))
        create_history(op, "stocks")

    async with database.engine.begin() as connection:
        await connection.run_sync(begin)
        await connection.execute(text("INSERT INTO readings VALUES ('a', 1, 'n')"))
        await connection.execute(text("UPDATE readings SET device = 'b'"))
        keys = await connection.scalars(text("SELECT key FROM readings_history ORDER BY id"))
        assert list(keys) == [{"device": "a", "at": 1}, {"device": "a", "at": 1}]
        await connection.run_sync(
            lambda connection: drop_history(
                Operations(MigrationContext.configure(connection)), "readings"
            )
        )
        await connection.execute(text("UPDATE readings SET device = 'c'"))
    stocks = Repository(Stock, database.session_factory)
    with pytest.raises(TypeError, match="no HistoryMixin"):
        await stocks.history_of(1)
