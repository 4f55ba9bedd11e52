import asyncio

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import Database
from tests.database.articles import article
from tests.database.models import Article, TestBase


def test_two_tables_of_tenants_have_an_index_each() -> None:
    names = {
        name: [
            index.name
            for index in TestBase.metadata.tables[name].indexes
            if "merchant_id" in index.columns
        ]
        for name in ("articles", "parcels")
    }
    assert names == {
        "articles": ["ix_articles_merchant_id_merchant_domain"],
        "parcels": ["ix_parcels_merchant_id_merchant_domain"],
    }


async def test_constraints_are_named_after_table_and_columns(database: Database) -> None:
    query = text("SELECT conname FROM pg_constraint WHERE conrelid = 'articles'::regclass")
    async with database.transaction() as session:
        names = set(await session.scalars(query))
    assert names >= {"pk_articles", "uq_articles_name", "ck_articles_stock"}


async def test_updated_at_changes_on_orm_core_and_raw_updates(database: Database) -> None:
    async def touched(session: AsyncSession) -> None:
        await session.refresh(row)
        assert row.updated_at > seen[-1]
        seen.append(row.updated_at)

    row = article()
    async with database.transaction() as session:
        session.add(row)
        await session.flush()
        created, seen = row.created_at, [row.updated_at]
        row.stock = 1
        await session.flush()
        assert row.updated_at > seen[-1]  # read back with the flush: no query of its own
        await touched(session)
        await session.execute(update(Article).values(stock=2))
        await touched(session)
        await session.execute(text("UPDATE articles SET stock = 3"))
        await touched(session)
        await session.execute(text("UPDATE articles SET stock = 3"))
        await session.refresh(row)
        assert row.updated_at == seen[-1], "nothing changed"
        assert row.created_at == created
        assert created.tzinfo is not None


async def test_attributes_of_the_database_need_no_query_after_commit(database: Database) -> None:
    row = article()
    async with database.transaction() as session:
        session.add(row)
    await asyncio.sleep(0)
    assert row.created_at <= row.updated_at
