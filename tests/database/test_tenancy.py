"""Row-level security, as a role that it binds: superusers see everything."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, select, text

from shared.config import DatabaseSettings
from shared.context import Context, bind
from shared.database import Database, Repository, isolate_merchants
from shared.errors import DatabaseError
from tests.database.models import Article
from tests.database.test_repository import MERCHANT, article


@pytest.fixture
async def tenants(
    database: Database, database_settings: DatabaseSettings
) -> AsyncIterator[Database]:
    role = f"service_{uuid4().hex}"

    def isolate(connection: Connection) -> None:
        isolate_merchants(Operations(MigrationContext.configure(connection)), "articles")

    async with database.engine.begin() as connection:
        await connection.run_sync(isolate)
        await connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        await connection.execute(text(f'GRANT ALL ON SCHEMA "shop-1" TO {role}'))
        await connection.execute(text(f'GRANT ALL ON ALL TABLES IN SCHEMA "shop-1" TO {role}'))
        await connection.execute(text(f"ALTER TABLE articles OWNER TO {role}"))
    settings = database_settings.model_copy(update={"user": role, "pool_size": 1})
    async with Database(settings, schema="shop-1") as tenants:
        yield tenants
    async with database.engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE articles OWNER TO {database_settings.user}"))
        await connection.execute(text(f"DROP OWNED BY {role}"))
        await connection.execute(text(f"DROP ROLE {role}"))


async def names(database: Database) -> list[str]:
    async with database.transaction() as session:
        return list(await session.scalars(select(Article.name)))


async def test_a_transaction_sees_the_merchant_of_its_context_and_without_one_nothing(
    tenants: Database,
) -> None:
    other = UUID("018f4e9a-0000-7000-8000-000000000002")
    articles = Repository(Article, tenants.session_factory)
    with bind(Context.start(tenant_id=str(MERCHANT))):
        await articles.save(article("mine"))
    with bind(Context.start(tenant_id=str(other))):
        await articles.save(article("theirs", merchant_id=other))
        assert await names(tenants) == ["theirs"]
        with pytest.raises(DatabaseError):
            await articles.save(article("smuggled"))
    with bind(Context.start(tenant_id=str(MERCHANT))):
        assert await names(tenants) == ["mine"]
    assert await names(tenants) == []
