"""Every dangerous step is found at its line, and its safe form is not."""

import sys
from pathlib import Path

import pytest

from shared.config import DatabaseSettings
from shared.database import Database, Migrations
from shared.database.migrations.lint import RULES, Finding

BEFORE = """
import sqlalchemy as sa
from alembic import op
revision = "0001"
down_revision = None
def upgrade():
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("name", sa.String(20)),
        sa.Column("note", sa.Text),
        sa.Column("price", sa.Numeric(10, 2)),
        sa.Column("seen_at", sa.DateTime()),
    )
    op.create_index("ix_orders_name", "orders", ["name"])
def downgrade():
    op.drop_table("orders")
"""
HEAD = """
import sqlalchemy as sa
from alembic import op
from shared.database import operations
revision = "0002"
down_revision = "0001"
def downgrade():
    raise NotImplementedError("a test goes forward")
def upgrade():
"""


async def lint(folder: Path, body: str, *, timeout: float = 10.0) -> list[Finding]:
    (folder / "0001.py").write_text(BEFORE)
    (folder / "0002.py").write_text(HEAD + body)
    for module in [name for name in sys.modules if name.startswith("0002")]:
        del sys.modules[module]
    settings = DatabaseSettings(lock_timeout_seconds=timeout)
    async with Database(settings, schema="shop") as database:
        return await Migrations(database, folder).lint(["0002"])


@pytest.mark.parametrize(
    ("statement", "rules"),
    [
        ('op.create_index("ix_orders_note", "orders", ["note"])', ["create-index"]),
        (
            'op.create_index("ix", "orders", [sa.text("lower(note)")], unique=True)',
            ["create-index"],
        ),
        (
            'op.create_index("ix", "orders", ["note"], postgresql_concurrently=True)',
            ["concurrently-in-transaction"],
        ),
        ('op.drop_index("ix_orders_name")', ["drop-index"]),
        (
            'op.drop_index("ix_orders_name", postgresql_concurrently=True)',
            ["concurrently-in-transaction"],
        ),
        ('op.execute("REINDEX TABLE orders")', ["table-rewrite"]),
        ('op.execute("VACUUM (FULL) orders")', ["table-rewrite"]),
        ('op.execute("ALTER TABLE orders SET UNLOGGED")', ["table-rewrite"]),
        ('op.alter_column("orders", "name", type_=sa.String(10))', ["table-rewrite"]),
        ('op.alter_column("orders", "note", type_=sa.String(10))', ["table-rewrite"]),
        ('op.alter_column("orders", "id", type_=sa.Integer)', ["table-rewrite"]),
        ('op.alter_column("orders", "price", type_=sa.Numeric(12, 4))', ["table-rewrite"]),
        ('op.alter_column("orders", "seen_at", type_=sa.DateTime(True))', ["table-rewrite"]),
        (
            'op.alter_column("orders", "note", type_=sa.Text, postgresql_using="lower(note)")',
            ["table-rewrite"],
        ),
        (
            (
                'op.add_column("orders", sa.Column("k", sa.Uuid, server_default='
                "sa.func.gen_random_uuid()))"
            ),
            ["table-rewrite"],
        ),
        (
            'op.execute("ALTER TABLE orders ADD COLUMN at timestamptz DEFAULT clock_timestamp()")',
            ["table-rewrite"],
        ),
        ('op.execute("ALTER TABLE orders ADD n bigserial")', ["table-rewrite"]),
        (
            'op.add_column("orders", sa.Column("n", sa.BigInteger, sa.Identity()))',
            ["table-rewrite"],
        ),
        (
            'op.execute("ALTER TABLE orders ADD n int GENERATED ALWAYS AS (id + 1) STORED")',
            ["table-rewrite"],
        ),
        (
            'op.add_column("orders", sa.Column("vip", sa.Boolean, nullable=False))',
            ["add-column-not-null"],
        ),
        ('op.alter_column("orders", "note", nullable=False)', ["set-not-null"]),
        ('op.create_check_constraint("dear", "orders", "price > 0")', ["constraint"]),
        (
            'op.create_foreign_key("fk", "orders", "orders", ["id"], ["id"], ondelete="CASCADE")',
            ["constraint"],
        ),
        ('op.create_unique_constraint("uq", "orders", ["name", "note"])', ["unique"]),
        ('op.execute("ALTER TABLE orders ADD EXCLUDE USING gist (note WITH =)")', ["unique"]),
        ('op.drop_column("orders", "note")', ["drop-column"]),
        ('op.drop_table("orders")', ["drop-table"]),
        ('op.execute("TRUNCATE orders")', ["drop-table"]),
        ('op.alter_column("orders", "note", new_column_name="remark")', ["rename"]),
        ('op.rename_table("orders", "purchases")', ["rename"]),
        (
            (
                'op.execute("ALTER TABLE orders ADD CONSTRAINT d CHECK (price > 0) NOT VALID");'
                'op.execute("ALTER TABLE orders VALIDATE CONSTRAINT d")'
            ),
            ["lock-while-validating"],
        ),
        (
            (
                'op.add_column("orders", sa.Column("vip", sa.Boolean));'
                'op.execute("UPDATE orders SET vip = false")'
            ),
            ["backfill"],
        ),
        (
            (
                'op.execute("DELETE FROM orders WHERE note IS NULL");'
                "op.execute('ALTER TABLE \"orders\" ADD x int')"
            ),
            ["backfill"],
        ),
        ('op.execute("/* a; b */ DROP TABLE -- gone\\n shop.orders; SELECT 1")', ["drop-table"]),
        ('op.get_bind().exec_driver_sql("SELECT 1").scalar()', ["needs-database"]),
        (
            'op.execute("SET lock_timeout = 0"); op.add_column("orders", sa.Column("x", sa.Text))',
            ["lock-timeout"],
        ),
        (
            (
                "with op.get_context().autocommit_block():"
                ' op.execute("CREATE INDEX CONCURRENTLY ix ON orders (note)")'
            ),
            ["index-leftover"],
        ),
        (
            (
                "with op.get_context().autocommit_block():"
                ' op.execute("CREATE INDEX CONCURRENTLY IF NOT EXISTS ix ON orders (note)")'
            ),
            ["index-leftover"],
        ),
        # What costs nothing:
        ('op.alter_column("orders", "name", type_=sa.String(30))', []),
        ('op.alter_column("orders", "name", type_=sa.Text)', []),
        ('op.alter_column("orders", "price", type_=sa.Numeric(12, 2))', []),
        ('op.alter_column("orders", "price", type_=sa.Numeric())', []),
        ('op.add_column("orders", sa.Column("vip", sa.Boolean))', []),
        (
            (
                'op.add_column("orders", sa.Column("vip", sa.Boolean, nullable=False, '
                "server_default=sa.false()))"
            ),
            [],
        ),
        ('op.add_column("orders", sa.Column("at", sa.DateTime, server_default=sa.func.now()))', []),
        ('op.alter_column("orders", "note", server_default="none")', []),
        ('op.execute("INSERT INTO orders (id) VALUES (1)")', []),
        ("op.execute(\"SELECT 'DROP TABLE orders; TRUNCATE orders'\")", []),
        ('op.execute("DO $$ BEGIN PERFORM 1; DROP TABLE IF EXISTS nothing; END $$")', []),
        # The safe forms:
        ('operations.create_index(op, "ix_orders_note", "orders", ["note"])', []),
        ('operations.drop_index(op, "ix_orders_name")', []),
        ('operations.add_check(op, "dear", "orders", "price > 0")', []),
        ('operations.add_foreign_key(op, "fk", "orders", ["id"], "orders", ["id"])', []),
        ('operations.add_unique(op, "uq", "orders", ["name"])', []),
        ('operations.set_not_null(op, "orders", "note")', []),
        ('operations.backfill(op, "orders", "SET note = \'\'", where="note IS NULL")', []),
        # A new table is nobody's yet:
        (
            (
                'op.create_table("new", sa.Column("id", sa.Integer)); '
                'op.create_index("ix", "new", ["id"]); op.execute("INSERT INTO new SELECT 1");'
                ' op.alter_column("new", "id", nullable=False); op.drop_column("new", "id")'
            ),
            [],
        ),
    ],
)
async def test_what_is_dangerous_is_found(tmp_path: Path, statement: str, rules: list[str]) -> None:
    found = await lint(tmp_path, f"    {statement}\n")
    assert [finding.rule for finding in found] == rules, found
    assert set(rules) <= set(RULES)
    for finding in found:
        assert (Path(finding.path).name, finding.line) == ("0002.py", HEAD.count("\n") + 1)
        compile("\n".join(finding.safe.splitlines()), finding.path, "exec")


async def test_the_safe_form_is_code_to_paste(tmp_path: Path) -> None:
    found = await lint(
        tmp_path,
        '    op.create_index("ix", "orders", ["name", "note"], unique=True)\n'
        '    op.create_unique_constraint("uq", "orders", ["name"])\n'
        '    op.create_foreign_key("fk", "orders", "people", ["id"], ["key"])\n',
    )
    safe = [finding.safe.splitlines()[-1] for finding in found]
    assert safe == [
        'operations.create_index(op, "ix", "orders", ["name", "note"], unique=True)',
        'operations.add_unique(op, "uq", "orders", ["name"])',
        'operations.add_foreign_key(op, "fk", "orders", ["id"], "people", ["key"])',
    ]
    assert "SHARE" in str(found[0])
    assert f"0002.py:{HEAD.count(chr(10)) + 1}: create-index" in str(found[0])


async def test_a_finding_is_allowed_with_a_reason_and_not_without(tmp_path: Path) -> None:
    body = """\
    # lint-ok drop-column: nothing reads it since 1.4
    op.drop_column(
        "orders", "note"
    )
    op.drop_column("orders", "name")  # lint-ok drop-column
    op.drop_column("orders", "price")  # lint-ok rename: the wrong rule
    op.drop_column("orders", "seen_at")
"""
    found = [(f.rule, f.line - HEAD.count("\n")) for f in await lint(tmp_path, body)]
    assert found == [
        ("drop-column", 6),
        ("drop-column", 7),
        ("suppression", 5),
        ("suppression", 6),
    ]


async def test_a_revision_without_a_way_back_is_found(tmp_path: Path) -> None:
    found = await lint(tmp_path, '    op.add_column("orders", sa.Column("x", sa.Text))\n')
    assert found == []
    file = tmp_path / "0002.py"
    file.write_text(
        file.read_text().replace('raise NotImplementedError("a test goes forward")', "pass")
    )
    async with Database(DatabaseSettings(), schema="shop") as database:
        (finding,) = await Migrations(database, tmp_path).lint()
    assert (finding.rule, finding.line) == ("no-downgrade", 7)


async def test_waiting_for_a_lock_needs_an_end(tmp_path: Path) -> None:
    body = '    op.add_column("orders", sa.Column("x", sa.Text))\n'
    assert [f.rule for f in await lint(tmp_path, body, timeout=0)] == ["lock-timeout"]
    body = "    op.execute(\"SET LOCAL lock_timeout = '5s'\")\n" + body
    assert await lint(tmp_path, body, timeout=0) == []
