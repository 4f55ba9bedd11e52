"""Row-level security, as an ordinary role: superusers see everything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError

from shared.config import ConfigError
from shared.context import Context, bind, current
from shared.database import (
    Database,
    Repository,
    TenantMismatchError,
    TenantRequiredError,
    isolate_merchants,
    system_scope,
    tenant_scope,
    without_isolation,
)
from shared.errors import DatabaseError
from tests.database.articles import MERCHANT, article
from tests.database.models import Article, Parcel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from shared.config import DatabaseSettings
    from shared.dev import PostgresServer

OTHER = UUID("018f4e9a-0000-7000-8000-000000000002")


def isolate(connection: Connection) -> None:
    op = Operations(MigrationContext.configure(connection))
    isolate_merchants(op, "articles")
    isolate_merchants(op, "parcels")


@pytest.fixture
async def tenants(
    database: Database, database_settings: DatabaseSettings
) -> AsyncIterator[Database]:
    """One connection for all, so that what one transaction leaves behind meets the next."""
    async with database.engine.begin() as connection:
        await connection.run_sync(isolate)
    settings = database_settings.model_copy(update={"pool_size": 1, "max_overflow": 0})
    async with Database(settings, schema="shop-1") as tenants:
        for merchant, name in ((MERCHANT, "mine"), (OTHER, "theirs")):
            with tenant_scope(merchant):
                articles = Repository(Article, tenants.session_factory)
                await articles.save(article(name, merchant_id=merchant))
                parcels = Repository(Parcel, tenants.session_factory)
                number = 1 if merchant == MERCHANT else 2
                await parcels.save(Parcel(id=number, merchant_id=merchant, merchant_domain="d"))
        yield tenants
        assert tenants.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def names(database: Database) -> list[str]:
    async with database.transaction() as session:
        return list(await session.scalars(select(Article.name)))


async def test_a_transaction_sees_the_merchant_of_its_context(tenants: Database) -> None:
    articles = Repository(Article, tenants.session_factory)
    with bind(Context.start(tenant_id=str(OTHER))):
        assert await names(tenants) == ["theirs"]
        with pytest.raises(DatabaseError):
            await articles.save(article("smuggled"))
    with tenant_scope(MERCHANT):
        assert await names(tenants) == ["mine"]


async def test_no_merchant_is_an_error_and_neither_all_rows_nor_none(tenants: Database) -> None:
    with pytest.raises(TenantRequiredError, match="tenant_scope"):
        await names(tenants)
    with pytest.raises(TenantRequiredError):
        await Repository(Article, tenants.session_factory).save(article("nobody's"))
    async with tenants.engine.connect() as connection:
        with pytest.raises(DBAPIError, match="no merchant"):
            await connection.execute(text("DELETE FROM articles"))


async def test_no_merchant_is_an_error_in_an_empty_table_too(
    tenants: Database, database: Database
) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("TRUNCATE articles"))
    for statement in ("SELECT * FROM articles", "UPDATE articles SET stock = 1"):
        with pytest.raises(TenantRequiredError):
            async with tenants.transaction() as session:
                await session.execute(text(statement))


async def test_a_tenant_that_is_no_merchant_is_an_error(tenants: Database) -> None:
    with tenant_scope("acme"), pytest.raises(TenantRequiredError, match="acme is no merchant id"):
        await names(tenants)


async def _raw(session: AsyncSession) -> object:
    return await session.scalar(text("SELECT count(*) FROM articles WHERE name = 'theirs'"))


async def _join(session: AsyncSession) -> object:
    return await session.scalar(
        text("SELECT count(*) FROM parcels p LEFT JOIN articles a ON true WHERE a.name = 'theirs'")
    )


async def _subquery(session: AsyncSession) -> object:
    return await session.scalar(
        select(func.count()).where(Parcel.id == 2, select(Article.id).exists())
    )


async def _update(session: AsyncSession) -> object:
    done = await session.execute(update(Article).where(Article.name == "theirs").values(stock=9))
    return done.rowcount  # type: ignore[attr-defined]


async def _delete(session: AsyncSession) -> object:
    done = await session.execute(text("DELETE FROM parcels WHERE id = 2"))
    return done.rowcount  # type: ignore[attr-defined]


async def _give_away(session: AsyncSession) -> object:
    return await session.execute(update(Article).values(merchant_id=OTHER))


async def _insert(session: AsyncSession) -> object:
    row = {"id": 3, "merchant_id": OTHER, "merchant_domain": "d"}
    return await session.execute(insert(Parcel), [row])


async def _upsert(session: AsyncSession) -> object:
    row = upsert(Parcel).values(id=2, merchant_id=MERCHANT, merchant_domain="taken")
    return await session.execute(
        row.on_conflict_do_update(index_elements=["id"], set_={"merchant_domain": "taken"})
    )


async def _merge(session: AsyncSession) -> object:
    return await session.execute(
        text(
            "MERGE INTO parcels USING (VALUES (2)) AS v(n) ON id = v.n "
            "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN DO NOTHING"
        )
    )


async def _copy_in(session: AsyncSession) -> object:
    raw = await (await session.connection()).get_raw_connection()
    driver = raw.driver_connection
    assert driver is not None
    return await driver.copy_records_to_table(
        "parcels", records=[(3, OTHER, "d")], columns=["id", "merchant_id", "merchant_domain"]
    )


async def _copy_out(session: AsyncSession) -> object:
    raw = await (await session.connection()).get_raw_connection()
    driver = raw.driver_connection
    assert driver is not None
    rows: list[bytes] = []

    async def take(data: bytes) -> None:
        rows.append(data)

    await driver.copy_from_table("parcels", output=take, columns=["id"])
    return b"2" in b"".join(rows)


async def _function(session: AsyncSession) -> object:
    await session.execute(
        text(
            "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS "
            "$$ SELECT count(*) FROM parcels WHERE id = 2 $$"
        )
    )
    return await session.scalar(text("SELECT peek()"))


async def _view(session: AsyncSession) -> object:
    await session.execute(text("CREATE VIEW seen AS SELECT id FROM parcels"))
    return await session.scalar(text("SELECT count(*) FROM seen WHERE id = 2"))


async def _row_security_off(session: AsyncSession) -> object:
    await session.execute(text("SET LOCAL row_security = off"))
    return await session.scalar(text("SELECT count(*) FROM parcels"))


async def _change_role(session: AsyncSession) -> object:
    await session.execute(text("SET LOCAL ROLE glam_system"))
    return await session.scalar(text("SELECT count(*) FROM parcels WHERE id = 2"))


@pytest.mark.parametrize(
    "leak",
    [
        _raw,
        _join,
        _subquery,
        _update,
        _delete,
        _give_away,
        _insert,
        _upsert,
        _merge,
        _copy_in,
        _copy_out,
        _function,
        _view,
        _row_security_off,
        _change_role,
    ],
)
async def test_no_statement_reaches_another_tenants_rows(
    tenants: Database, leak: Callable[[AsyncSession], Awaitable[object]]
) -> None:
    with tenant_scope(MERCHANT):
        try:
            async with tenants.transaction() as session:
                result = await leak(session)
        except DatabaseError:
            pass  # PostgreSQL refused
        else:
            assert not isinstance(result, int) or result == 0
    with tenant_scope(OTHER):
        assert await names(tenants) == ["theirs"]
        async with tenants.transaction() as session:
            parcels = await session.scalars(select(Parcel))
            assert [(p.id, p.merchant_domain) for p in parcels] == [(2, "d")]
            assert await session.scalar(select(Article.stock)) == 0


async def test_the_repository_reaches_its_own_rows_only(tenants: Database) -> None:
    articles = Repository(Article, tenants.session_factory)
    parcels = Repository(Parcel, tenants.session_factory)
    with tenant_scope(OTHER):
        theirs = (await articles.find_all())[0]
    with tenant_scope(MERCHANT):
        assert await articles.find_by_id(theirs.id) is None
        assert [row.name for row in await articles.find_all()] == ["mine"]
        assert await articles.find_all(name="theirs") == []
        assert await articles.count() == 1
        await parcels.delete_by_id(2)
        await articles.delete(theirs)
        with pytest.raises(DatabaseError):
            await articles.update(theirs)
    with tenant_scope(OTHER):
        assert await articles.count() == await parcels.count() == 1


async def test_tasks_work_for_their_own_merchant_over_one_connection(tenants: Database) -> None:
    async def job(merchant: UUID, name: str) -> None:
        with tenant_scope(merchant):
            for _ in range(10):
                assert await names(tenants) == [name]
                await asyncio.sleep(0)

    await asyncio.gather(
        *(job(MERCHANT, "mine") for _ in range(5)), *(job(OTHER, "theirs") for _ in range(5))
    )
    with pytest.raises(TenantRequiredError):
        await names(tenants)


async def test_a_background_task_keeps_the_scope_it_was_started_in(tenants: Database) -> None:
    with tenant_scope(MERCHANT):
        task = asyncio.create_task(names(tenants))
    assert await task == ["mine"]


async def test_a_transaction_finds_its_merchant_late_and_keeps_it(tenants: Database) -> None:
    async with tenants.transaction() as session:
        await session.execute(text("SELECT 1"))
        with tenant_scope(MERCHANT):
            assert await session.scalar(select(Article.name)) == "mine"
        session.add(article("later"))
        await session.flush()
        with tenant_scope(OTHER), pytest.raises(TenantMismatchError):
            await session.scalar(select(Article.name))
    with tenant_scope(MERCHANT):
        assert await names(tenants) == ["mine", "later"]


async def test_a_savepoint_that_is_rolled_back_does_not_take_the_merchant_with_it(
    tenants: Database,
) -> None:
    async with tenants.engine.connect() as connection:
        savepoint = await connection.begin_nested()  # before the merchant is told
        with tenant_scope(MERCHANT):
            assert await connection.scalar(select(Article.name)) == "mine"
            await savepoint.rollback()
            assert await connection.scalar(select(Article.name)) == "mine"


async def test_a_statement_may_fail_in_a_savepoint_of_a_merchant(tenants: Database) -> None:
    with tenant_scope(MERCHANT):
        async with tenants.transaction() as session:
            for _ in range(2):
                with pytest.raises(DBAPIError):
                    async with session.begin_nested():
                        await session.execute(text("SELECT 1 / 0"))
                assert await session.scalar(select(Article.name)) == "mine"


async def test_work_for_one_merchant_does_not_turn_into_work_for_another() -> None:
    with tenant_scope(MERCHANT) as context:
        assert current() is context
        with pytest.raises(TenantMismatchError), tenant_scope(OTHER):
            pass
        with tenant_scope(str(MERCHANT).upper()):
            pass
        with system_scope("test"), tenant_scope(OTHER):
            pass
    assert current() is None


async def test_work_across_tenants_says_so(
    tenants: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with system_scope("nightly totals"):
        assert sorted(await names(tenants)) == ["mine", "theirs"]
        with tenant_scope(MERCHANT):
            assert await names(tenants) == ["mine"]
    assert caplog.records[0].__dict__["reason"] == "nightly totals"
    with pytest.raises(ValueError, match="reason"), system_scope(" "):
        pass


async def test_a_transaction_is_inside_of_the_system_scope_or_outside(tenants: Database) -> None:
    async with tenants.transaction() as session:
        await session.execute(text("SELECT 1"))
        with system_scope("test"), pytest.raises(TenantMismatchError, match="outside"):
            await session.execute(text("SELECT 1"))
    async with tenants.transaction() as session:
        with system_scope("test"):
            assert len(list(await session.scalars(select(Article)))) == 2
        with pytest.raises(TenantMismatchError, match="inside"):
            await session.scalars(select(Article))


async def test_without_a_role_for_it_there_is_no_work_across_tenants(
    database_settings: DatabaseSettings,
) -> None:
    settings = database_settings.model_copy(update={"system_user": None})
    async with Database(settings, schema="shop-1") as database:
        with system_scope("test"), pytest.raises(ConfigError, match="system_user"):
            async with database.transaction() as session:
                await session.execute(text("SELECT 1"))


async def test_a_revision_may_change_the_rows_of_all(tenants: Database) -> None:
    def backfill(connection: Connection) -> None:
        op = Operations(MigrationContext.configure(connection))
        with without_isolation(op, "articles"):
            op.execute("UPDATE articles SET stock = 7")

    async with tenants.engine.begin() as connection:
        await connection.run_sync(backfill)
    with pytest.raises(TenantRequiredError):
        await names(tenants)
    with system_scope("test"):
        async with tenants.transaction() as session:
            assert list(await session.scalars(select(Article.stock))) == [7, 7]


async def test_a_role_that_passes_by_the_policies_is_told_of(
    tenants: Database, database_settings: DatabaseSettings
) -> None:
    security = await tenants.row_security()
    assert security.tables == ["articles", "parcels"]
    assert not security.broken
    settings = database_settings.model_copy(update={"user": "postgres"})
    async with Database(settings, schema="shop-1") as database:
        assert (await database.row_security()).broken


async def test_the_policy_lets_an_index_be_used(tenants: Database) -> None:
    with tenant_scope(MERCHANT):
        async with tenants.transaction() as session:
            await session.execute(text("SET LOCAL enable_seqscan = off"))
            plan = "\n".join(await session.scalars(text("EXPLAIN SELECT * FROM parcels")))
    assert "Index Cond: (merchant_id =" in plan


async def test_the_servers_roles(postgres_server: PostgresServer) -> None:
    settings = postgres_server.settings
    async with Database(settings, schema=f"s_{uuid4().hex}") as database:
        assert not (await database.row_security()).bypassed
