import pytest

from shared.database.engine.statements import summary_of


@pytest.mark.parametrize(
    ("statement", "summary"),
    [
        ("SELECT 1", "SELECT"),
        ("select * from orders where a = 'from x'", "SELECT orders"),
        ('SELECT * FROM "shop-1"."orders" AS o', 'SELECT "shop-1"."orders"'),
        ("SELECT a FROM x JOIN y USING (id) LEFT JOIN ONLY z ON true", "SELECT x y z"),
        ("SELECT a FROM (SELECT b FROM inner_one) AS t", "SELECT SELECT inner_one"),
        ("INSERT INTO ledger (a) SELECT a FROM orders", "INSERT ledger SELECT orders"),
        ("INSERT INTO inbox VALUES ($1) ON CONFLICT DO UPDATE SET a = 1", "INSERT inbox"),
        ("UPDATE outbox SET a = 1 FROM due WHERE b = 2", "UPDATE outbox due"),
        ("DELETE FROM ONLY s.t USING u", "DELETE s.t"),
        (
            "WITH due AS (SELECT id FROM outbox FOR UPDATE) UPDATE outbox SET a = 1 FROM due",
            "SELECT outbox UPDATE outbox due",
        ),
        ("SELECT extract(epoch FROM created_at), trim(both FROM b) FROM t", "SELECT t"),
        ("SELECT a FROM t WHERE b IS DISTINCT FROM c", "SELECT t"),
        ("SELECT * FROM unnest($1::text[]) AS u", "SELECT"),
        ('SELECT u.update, u."from" FROM u -- FROM v\n /* FROM w */', "SELECT u"),
        ("SELECT 1 WHERE EXISTS (SELECT FROM t)", "SELECT SELECT t"),
        ("SELECT $body$ FROM x $body$ FROM y", "SELECT y"),
        ("-- say it\nNOTIFY outbox", "NOTIFY"),
        ("SET LOCAL x = 1", "SET"),
        ("", "SQL"),
        ("SELECT )(FROM", "SELECT"),
    ],
)
def test_a_summary_tells_what_is_done_to_which_tables_and_no_value(
    statement: str, summary: str
) -> None:
    assert summary_of(statement) == summary


def test_a_summary_is_no_longer_than_the_conventions_allow() -> None:
    assert len(summary_of("SELECT 1 FROM a " + "JOIN b ON true " * 500)) == 255
