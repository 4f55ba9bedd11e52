import asyncio
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.config import DatabaseSettings
from shared.database import Base, Database, MigrationManager, Migrations, migrate
from shared.errors import DatabaseError
from tests.database.models import TestBase

FIRST = """
from alembic import op
import time
revision = "0001"
down_revision = None
def upgrade():
    op.execute("CREATE TABLE counted (n int)")
    op.execute("INSERT INTO counted VALUES (1)")
    op.execute("SELECT pg_sleep(0.3)")
def downgrade():
    op.execute("DROP TABLE counted")
"""
SECOND = """
from alembic import op
revision = "0002"
down_revision = "0001"
def upgrade():
    op.execute("INSERT INTO counted VALUES (2)")
    with op.get_context().autocommit_block():
        op.execute("CREATE INDEX CONCURRENTLY ix_counted ON counted (n)")
def downgrade():
    op.execute("DROP INDEX ix_counted")
    op.execute("DELETE FROM counted WHERE n = 2")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "100% revisions"
    folder.mkdir()
    (folder / "0001.py").write_text(FIRST)
    (folder / "0002.py").write_text(SECOND)
    return folder


async def rows(database: Database) -> list[int]:
    async with database.transaction() as session:
        return list(await session.scalars(text("SELECT n FROM counted ORDER BY n")))


async def test_migrate_creates_the_schema_and_is_at_the_newest(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    async with Database(database_settings, schema='cre"dit;--') as database:
        assert await migrate(database, migrations=folder) == "0002"
        assert await migrate(database, migrations=folder) == "0002"
        assert await rows(database) == [1, 2]
        async with database.transaction() as session:
            tables = await session.execute(
                text(
                    "SELECT schemaname, tablename FROM pg_tables WHERE tablename IN "
                    "('counted', 'alembic_version') ORDER BY tablename"
                )
            )
            assert [tuple(row) for row in tables] == [
                ('cre"dit;--', "alembic_version"),
                ('cre"dit;--', "counted"),
            ]


async def test_two_services_in_one_database_do_not_see_each_other(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    async with (
        Database(database_settings, schema="credit") as credit,
        Database(database_settings, schema="catalog") as catalog,
    ):
        await asyncio.gather(
            migrate(credit, migrations=folder), migrate(catalog, migrations=folder)
        )
        assert await rows(credit) == await rows(catalog) == [1, 2]


async def test_many_replicas_may_migrate_at_once(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    replica = f"""
import asyncio
from pathlib import Path
from shared.config import DatabaseSettings
from shared.database import Database, migrate

async def main():
    settings = DatabaseSettings.model_validate_json({database_settings.model_dump_json()!r})
    async with Database(settings, schema="credit") as database:
        print(await migrate(database, migrations=Path({str(folder)!r})))

asyncio.run(main())
"""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", replica, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(6)
    ]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert [output.decode().split() for output, _ in outputs] == [["0002"]] * 6
    async with Database(database_settings, schema="credit") as database:
        assert await rows(database) == [1, 2]


async def test_a_failed_revision_leaves_those_before_it(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    second = folder / "0002.py"
    second.write_text(SECOND.replace("INSERT INTO counted", "INSERT INTO counted_wrong"))
    async with Database(database_settings, schema="credit") as database:
        with pytest.raises(DatabaseError) as caught:
            await migrate(database, migrations=folder)
        assert not caught.value.retryable
        assert await Migrations(database, folder).current() == "0001"
        second.write_text(SECOND)
        assert await migrate(database, migrations=folder) == "0002"


async def test_history_heads_current_and_downgrade(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    async with Database(database_settings, schema="credit") as database:
        migrations = Migrations(database, folder)
        assert await migrations.current() == ""
        await migrations.upgrade("0001")
        assert await migrations.current() == "0001"
        assert migrations.heads() == ["0002"]
        assert [(r.id, r.down) for r in migrations.history()] == [("0002", ("0001",)), ("0001", ())]
        await migrations.upgrade()
        assert await migrations.downgrade("0001") == "0001"
        assert await rows(database) == [1]


async def test_a_revision_is_written_from_the_models_and_ends_the_drift(
    database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    async with Database(database_settings, schema="shop") as database:
        migrations = Migrations(database, tmp_path)
        written = await migrations.create("first tables", TestBase.metadata)
        assert written.parent == tmp_path
        assert "create_table('articles'" in written.read_text()
        assert len(await migrations.drift(TestBase.metadata)) > 0
        await migrations.upgrade()
        assert await migrations.drift(TestBase.metadata) == []
        async with database.transaction() as session:
            await session.execute(text("ALTER TABLE parcels DROP COLUMN merchant_domain CASCADE"))
        assert "merchant_domain" in "\n".join(await migrations.drift(TestBase.metadata))


async def test_no_such_migrations(database_settings: DatabaseSettings, tmp_path: Path) -> None:
    async with Database(database_settings) as database:
        for wrong in (tmp_path / "nowhere", "nowhere.migrations", "json.decoder"):
            with pytest.raises(FileNotFoundError):
                await migrate(database, migrations=wrong)


async def test_the_old_manager_knows_the_real_revision(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old_service").mkdir()
    (tmp_path / "old_service" / "models.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    manager = MigrationManager(
        "old-service", str(tmp_path / "alembic.ini"), str(tmp_path / "migrations"), database_url
    )
    manager.init_alembic()
    (tmp_path / "migrations" / "versions" / "0001.py").write_text(FIRST)
    assert manager.get_current_revision() == ""
    manager.upgrade()
    assert manager.get_current_revision() == "0001"
    manager.downgrade("base")
    assert manager.get_current_revision() == ""


def test_tests_leave_the_services_metadata_alone() -> None:
    assert "articles" not in Base.metadata.tables
