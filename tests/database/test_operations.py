"""Operations of revisions on a real table, and the facts the linter builds on."""

from pathlib import Path
from textwrap import indent

import pytest
from sqlalchemy import text

from shared.config import DatabaseSettings
from shared.database import Database, Migrations
from shared.errors import ConflictError, ValidationError

HEAD = """
import sqlalchemy as sa
from alembic import op
from shared.database import operations
revision = "{revision}"
down_revision = {down}
def downgrade():
    pass
def upgrade():
"""


def write(folder: Path, number: int, body: str) -> None:
    down = f'"{number - 1:04}"' if number > 1 else None
    head = HEAD.format(revision=f"{number:04}", down=down)
    (folder / f"{number:04}.py").write_text(head + indent(body, "    "))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(
        tmp_path,
        1,
        """
op.execute("CREATE TABLE orders (id int PRIMARY KEY, email text, total int)")
op.execute("INSERT INTO orders SELECT n, 'a' || n, NULL FROM generate_series(1, 20000) n")
""",
    )
    return tmp_path


async def values(database: Database, statement: str) -> list[object]:
    async with database.transaction() as session:
        return list(await session.scalars(text(statement)))


async def test_what_waits_for_a_large_table_works_in_the_background(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    write(
        folder,
        2,
        """
operations.create_index(op, "ix_orders_email", "orders", ["email", "(lower(email))"])
operations.add_unique(op, "uq_orders_email", "orders", ["email"])
operations.add_check(op, "ck_orders_id", "orders", "id > 0 AND email <> ':colon'")
operations.add_foreign_key(op, "fk_orders", "orders", ["total"], "orders", ["id"])
operations.backfill(op, "orders", "SET total = id", where="total IS NULL", pages=8)
operations.set_not_null(op, "orders", "total")
operations.create_index(op, "ix_gone", "orders", ["total"], where="total > 5")
operations.drop_index(op, "ix_gone")
operations.run_sql(op, "SELECT '50%:x'::text; CREATE VIEW twice AS SELECT 'a;b' AS \\"c:d\\"")
""",
    )
    async with Database(database_settings, schema="shop") as database:
        migrations = Migrations(database, folder)
        assert await migrations.lint() == [
            finding for finding in await migrations.lint() if finding.rule == "no-downgrade"
        ]
        assert await migrations.upgrade() == "0002"
        assert await values(database, "SELECT count(*) FROM orders WHERE total = id") == [20000]
        assert await values(
            database,
            "SELECT conname::text FROM pg_constraint WHERE conrelid = 'orders'::regclass "
            "AND convalidated ORDER BY 1",
        ) == ["ck_orders_id", "fk_orders", "orders_id_not_null", "orders_pkey",
              "orders_total_not_null", "uq_orders_email"]  # fmt: skip
        assert (
            await values(
                database, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
            )
            == []
        )
        assert await values(database, 'SELECT "c:d" FROM twice') == ["a;b"]
        written = await migrations.sql("0001")
        assert "'50%:x'::text" in written


async def test_a_broken_index_is_built_again(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    write(folder, 2, 'operations.add_unique(op, "uq", "orders", ["total"])\n')
    async with Database(database_settings, schema="shop") as database:
        migrations = Migrations(database, folder)
        await migrations.upgrade("0001")
        async with database.transaction() as session:
            await session.execute(text("UPDATE orders SET total = 1 WHERE id < 3"))
        with pytest.raises(ConflictError):
            await migrations.upgrade()
        assert await migrations.current() == "0001"
        invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
        assert await values(database, invalid) == [1]
        async with database.transaction() as session:
            await session.execute(text("UPDATE orders SET total = id"))
        assert await migrations.upgrade() == "0002"
        assert await values(database, invalid) == [0]


async def test_a_row_that_does_not_obey_is_told_and_the_revision_repeated(
    database_settings: DatabaseSettings, folder: Path
) -> None:
    write(folder, 2, 'operations.set_not_null(op, "orders", "total")\n')
    async with Database(database_settings, schema="shop") as database:
        migrations = Migrations(database, folder)
        with pytest.raises(ValidationError, match="orders"):
            await migrations.upgrade()
        async with database.transaction() as session:
            await session.execute(text("UPDATE orders SET total = id"))
        assert await migrations.upgrade() == "0002"


@pytest.mark.parametrize(
    ("before", "change", "rewrites"),
    [
        ("varchar(20)", "ALTER c TYPE varchar(30)", False),
        ("varchar(20)", "ALTER c TYPE text", False),
        ("varchar(20)", "ALTER c TYPE varchar(10)", True),
        ("text", "ALTER c TYPE varchar", False),
        ("numeric(10,2)", "ALTER c TYPE numeric(12,2)", False),
        ("numeric(10,2)", "ALTER c TYPE numeric", False),
        ("numeric(10,2)", "ALTER c TYPE numeric(12,4)", True),
        ("int", "ALTER c TYPE bigint", True),
        ("timestamptz(3)", "ALTER c TYPE timestamptz", False),
        ("cidr", "ALTER c TYPE inet", False),
        ("int", "ADD d text DEFAULT 'x' NOT NULL", False),
        ("int", "ADD d timestamptz DEFAULT now()", False),
        ("int", "ADD d timestamptz DEFAULT clock_timestamp()", True),
        ("int", "ADD d uuid DEFAULT gen_random_uuid()", True),
        ("int", "ADD d bigint GENERATED ALWAYS AS IDENTITY", True),
        ("int", "ADD d bigserial", True),
        ("int", "ADD d int GENERATED ALWAYS AS (c + 1) STORED", True),
        ("int", "ADD d int GENERATED ALWAYS AS (c + 1) VIRTUAL", False),
        ("int", "SET UNLOGGED", True),
    ],
)
async def test_the_linter_says_of_a_rewrite_what_postgresql_does(
    database_settings: DatabaseSettings,
    tmp_path: Path,
    before: str,
    change: str,
    rewrites: bool,
) -> None:
    write(tmp_path, 1, f'op.execute("CREATE TABLE t (c {before})")')
    write(tmp_path, 2, f'op.execute("ALTER TABLE t {change}")')
    async with Database(database_settings, schema="shop") as database:
        migrations = Migrations(database, tmp_path)
        found = "table-rewrite" in {finding.rule for finding in await migrations.lint(["0002"])}
        await migrations.upgrade("0001")
        node = "SELECT pg_relation_filenode('t')"
        first = await values(database, node)
        await migrations.upgrade()
        assert (await values(database, node) != first) == rewrites
        assert found == rewrites
