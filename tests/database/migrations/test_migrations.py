import asyncio
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.config import DatabaseSettings
from shared.database import (
    Base,
    Database,
    MigrationError,
    MigrationManager,
    Migrations,
    migrate,
)
from shared.database.migrations.revision_files import newest_revision
from shared.database.migrations.sql_statement import split_statements
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


async def test_a_start_at_the_newest_revision_does_without_alembic(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    assert await started(database_settings, folder) == ["0002", "True"]
    assert await started(database_settings, folder) == ["0002", "False"]
    third = SECOND.replace('"0002"', '"0003"').replace('"0001"', '"0002"')
    (folder / "0003.py").write_text(third.replace("ix_counted", "ix_counted_again"))
    assert await started(database_settings, folder) == ["0003", "True"]


async def started(database_settings: DatabaseSettings, folder: Path) -> list[str]:
    """Migrate in a process of its own; return the revision, and whether Alembic was loaded."""
    start = f"""
import asyncio, sys
from pathlib import Path
from shared.config import DatabaseSettings
from shared.database import Database, migrate

async def main():
    settings = DatabaseSettings.model_validate_json({database_settings.model_dump_json()!r})
    async with Database(settings, schema="credit") as database:
        print(await migrate(database, migrations=Path({str(folder)!r})), "alembic" in sys.modules)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", start, stdout=asyncio.subprocess.PIPE
    )
    return (await process.communicate())[0].decode().split()


@pytest.mark.parametrize(
    ("second", "newest"),
    [
        (SECOND, "0002"),
        (SECOND.replace('revision = "0002"', 'revision: str = "0002"'), "0002"),
        (SECOND.replace('down_revision = "0001"', "down_revision = None"), None),
        (SECOND.replace('down_revision = "0001"', 'down_revision = "0000"'), None),
        (SECOND.replace('down_revision = "0001"', 'down_revision = ("0001",)'), None),
        (SECOND.replace('revision = "0002"', 'revision = "0001"'), None),
        ('revision = "0001"\ndown_revision = None\n', None),  # twice the same
        (SECOND.replace('"0002"', 'str("0002")'), None),
        (SECOND + 'if True:\n    revision = "0009"\n', None),
        (SECOND + 'branch_labels = ("b",)\n', None),
        (SECOND + 'depends_on = "0001"\n', None),
        (SECOND + "branch_labels = depends_on = None\n", "0002"),
        ("# no revision\n", None),
        ("def upgrade(:\n", None),
    ],
)
def test_the_newest_revision_is_known_without_alembic_only_where_it_is_plain(
    folder: Path, second: str, newest: str | None
) -> None:
    (folder / "0002.py").write_text(second)
    assert newest_revision(folder) == newest


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
    replicas = [started(database_settings, folder) for _ in range(6)]
    assert [revision for revision, _ in await asyncio.gather(*replicas)] == ["0002"] * 6
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


async def test_a_replica_killed_half_way_leaves_the_work_to_another(
    database_settings: DatabaseSettings, folder: Path, tmp_path: Path
) -> None:
    (folder / "0002.py").write_text(
        SECOND.replace(
            "def upgrade():",
            f"""def upgrade():
    import os, pathlib, signal
    op.execute("INSERT INTO counted VALUES (99)")
    if not pathlib.Path({str(tmp_path / "killed")!r}).exists():
        pathlib.Path({str(tmp_path / "killed")!r}).touch()
        os.kill(os.getpid(), signal.SIGKILL)""",
        )
    )
    replica = REPLICA.format(settings=database_settings.model_dump_json(), folder=str(folder))
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", replica, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    assert sorted(output.decode().strip() for output, _ in outputs) == ["", *["0002"] * 3]
    assert sorted(process.returncode or 0 for process in processes) == [-9, 0, 0, 0]
    async with Database(database_settings, schema="credit") as database:
        assert await rows(database) == [1, 2, 99]


REPLICA = """
import asyncio
from pathlib import Path
from shared.config import DatabaseSettings
from shared.database import Database, migrate

async def main():
    settings = DatabaseSettings.model_validate_json({settings!r})
    async with Database(settings, schema="credit") as database:
        print(await migrate(database, migrations=Path({folder!r})))

asyncio.run(main())
"""


async def test_old_code_starts_beside_a_schema_that_newer_code_migrated(
    database_settings: DatabaseSettings, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database(database_settings, schema="credit") as database:
        await migrate(database, migrations=folder)
        (folder / "0002.py").unlink()
        assert await migrate(database, migrations=folder) == "0002"
        assert "the schema is ahead of this code" in caplog.text
        migrations = Migrations(database, folder)
        with pytest.raises(MigrationError, match="newer code migrated it"):
            await migrations.pending()
        with pytest.raises(MigrationError, match="go back with the code that made it"):
            await migrations.downgrade("base")


async def test_a_schema_behind_a_baseline_is_refused(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    async with Database(database_settings, schema="credit") as database:
        await Migrations(database, folder).upgrade("0001")
        (folder / "0001.py").unlink()
        baseline = SECOND.replace('down_revision = "0001"', "down_revision = None")
        (folder / "0002.py").write_text(baseline + 'replaces = ("0001",)\n')
        with pytest.raises(MigrationError, match="with the release before the squash"):
            await migrate(database, migrations=folder)


async def test_mistakes_in_revisions_are_told_in_a_sentence(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    async with Database(database_settings, schema="credit") as database:
        migrations = Migrations(database, folder)
        with pytest.raises(MigrationError, match="no revision 0007; there are 0001, 0002"):
            await migrations.upgrade("0007")
        await migrations.upgrade("0001")
        with pytest.raises(MigrationError, match="1 revisions to go back from 0001, not 3"):
            await migrations.losses("-3")
        assert [loss.split(":")[0] for loss in await migrations.losses("-1")] == ["0001"]
        third = folder / "0003.py"
        third.write_text(SECOND.replace('revision = "0002"', 'revision = "0003"'))
        with pytest.raises(MigrationError, match='0003 follow: down_revision = "0002"'):
            await migrations.upgrade()
        third.write_text(SECOND)
        with pytest.raises(MigrationError, match=r"0002.py and 0003.py .* both revision 0002"):
            migrations.heads()
        third.write_text("def upgrade(:\n")
        with pytest.raises(MigrationError, match=r"0003.py:1: does not compile"):
            migrations.heads()


async def test_the_sql_of_an_upgrade_run_by_hand_does_the_same(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    async with Database(database_settings, schema='cre"dit') as database:
        migrations = Migrations(database, folder)
        written = await migrations.sql()
        connection = await database.connect()
        try:
            for statement in split_statements(written):
                await connection.execute(statement.text)
        finally:
            await connection.close()
        assert await migrations.current() == "0002"
        assert await rows(database) == [1, 2]


async def test_trigger_and_policy_that_a_model_needs_are_missed(
    database_settings: DatabaseSettings, tmp_path: Path
) -> None:
    async with Database(database_settings, schema="shop") as database:
        migrations = Migrations(database, tmp_path)
        written = await migrations.create("first tables", TestBase.metadata)
        assert written.name == "rev_0001_first_tables.py"
        assert "operations.create_updated_at_trigger(op, 'articles')" in written.read_text()
        await migrations.upgrade()
        assert await migrations.lint() == []
        async with database.transaction() as session:
            await session.execute(text("DROP TRIGGER touch_updated_at ON articles"))
            await session.execute(text("ALTER TABLE parcels NO FORCE ROW LEVEL SECURITY"))
        missed = "\n".join(await migrations.drift(TestBase.metadata))
        assert "articles lacks the trigger of updated_at" in missed
        assert "parcels lacks its policy" in missed
        second = await migrations.create("empty")
        assert second.name == "rev_0002_empty.py"
