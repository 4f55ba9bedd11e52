"""The database of one service: its schema, its outbox, and what keeps both in health."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from shared.database import Database, Migrations, translate_errors
from shared.delivery import read_outbox_status
from shared.doctor.checked_service import duration
from shared.doctor.checks.server import judge_clock
from shared.doctor.finding import Finding, Findings, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

    from shared.doctor.checked_service import CheckedService


_WAITS_SECONDS, _WAITS_LONG_SECONDS = 60.0, 300.0
_DEAD_ROWS = 50_000

# Beside the pool: the relay's connection, and the one that listens.
_BESIDE_THE_POOL = 2

_READ_ONLY = text("SET TRANSACTION READ ONLY")
_FACTS = text("""\
SELECT clock_timestamp() AS now, r.rolsuper OR r.rolbypassrls AS unbound, current_user AS role,
  current_setting('autovacuum') = 'on' AS autovacuum,
  (SELECT min(n) FROM (VALUES
    (current_setting('max_connections')::int
      - current_setting('superuser_reserved_connections')::int
      - coalesce(current_setting('reserved_connections', true)::int, 0)),
    (nullif(r.rolconnlimit, -1)),
    ((SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()))
  ) AS limits (n)) AS connections,
  (SELECT array_agg(DISTINCT tablename::text) FROM pg_policies WHERE schemaname = :schema)
    AS policies,
  (SELECT array_agg(tablename::text) FROM pg_tables WHERE schemaname = :schema) AS tables
FROM pg_roles AS r WHERE r.rolname = current_user""")
_OUTBOX = text("""\
SELECT coalesce(c.reloptions, '{}') AS options, coalesce(s.n_live_tup, 0) AS live,
  coalesce(s.n_dead_tup, 0) AS dead
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
WHERE n.nspname = :schema AND c.relname = 'outbox'""")
_LONG = text("""\
SELECT pid, application_name AS name, state,
  extract(epoch FROM clock_timestamp() - xact_start)::float AS age
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
  AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - :age * interval '1 second'
ORDER BY xact_start LIMIT 5""")
_FAILING = text("""\
SELECT subject, last_error FROM outbox WHERE published_at IS NULL AND attempts > 0
ORDER BY id LIMIT 1""")
_RELAYS = text("SELECT count(*) FROM outbox_relays WHERE expires_at > clock_timestamp()")

_TABLES = frozenset({"outbox", "inbox", "outbox_leases", "outbox_relays"})


class DatabaseFacts:
    """What was read of one service's database, in one transaction that writes nothing."""

    def __init__(self, row: Row[Any], *, accuracy_seconds: float, ahead_seconds: float) -> None:
        self.row = row
        self.ahead_seconds = ahead_seconds
        self.accuracy_seconds = accuracy_seconds
        self.tables = frozenset(row.tables or ())
        self.relays = 0
        self.outbox: Row[Any] | None = None
        self.failing: Row[Any] | None = None
        self.long: Sequence[Row[Any]] = ()


async def look_at_database(database: Database, *, long_seconds: float) -> DatabaseFacts:
    """Read what there is to judge.

    Raises:
        DatabaseError: the database is away, or does not let us read.
    """
    with translate_errors("examine"):
        async with database.engine.connect() as connection:
            await connection.execute(_READ_ONLY)
            before = _now()
            row = (await connection.execute(_FACTS, {"schema": database.schema})).one()
            half = (_now() - before) / 2
            facts = DatabaseFacts(
                row,
                ahead_seconds=(row.now - before - half).total_seconds(),
                accuracy_seconds=half.total_seconds(),
            )
            await _read_tables(connection, facts, database.schema)
            facts.long = (await connection.execute(_LONG, {"age": long_seconds})).all()
    return facts


async def _read_tables(connection: AsyncConnection, facts: DatabaseFacts, schema: str) -> None:
    if "outbox" in facts.tables:
        facts.outbox = (await connection.execute(_OUTBOX, {"schema": schema})).one()
        facts.failing = (await connection.execute(_FAILING)).first()
    if "outbox_relays" in facts.tables:
        facts.relays = await connection.scalar(_RELAYS) or 0


async def examine_database(
    database: Database, checked: CheckedService, facts: DatabaseFacts
) -> list[Finding]:
    """Judge one service's database.

    Raises:
        DatabaseError: the database is away.
    """
    found = Findings(f"database {checked.schema}")
    judge_clock(found, facts.ahead_seconds, facts.accuracy_seconds)
    await _revision(database, checked, found)
    _role(checked, facts, found)
    _timeouts(checked, found)
    _transactions(facts, found)
    if missing := sorted(_TABLES - facts.tables):
        found.error(
            "outbox-missing",
            f"there is no table {', '.join(missing)}",
            f"glam migrate up {checked.target} (its revisions call create_delivery_tables and "
            "create_outbox_leases)",
        )
    else:
        await _outbox(database, checked, facts, found)
    _vacuum(facts, checked.schema, found)
    return found.or_well("database", "as declared; nothing waits")


def examine_connections(
    under_check: Sequence[tuple[CheckedService, DatabaseFacts]],
) -> list[Finding]:
    """Judge the connections that all services of a server may ask for, against what it has."""
    found = Findings("PostgreSQL")
    servers = dict.fromkeys(_server(checked) for checked, _ in under_check)
    for server in servers:
        here = [(checked, facts) for checked, facts in under_check if _server(checked) == server]
        asked = {checked.name: _connections(checked) for checked, _ in here}
        has = min(facts.row.connections for _, facts in here)
        if sum(asked.values()) > has:
            listed = ", ".join(f"{name} {count}" for name, count in asked.items())
            found.add(
                "connection-limit",
                Severity.ERROR if max(asked.values()) > has else Severity.WARNING,
                f"it has {has} connections, and the pools may ask for {sum(asked.values())} "
                f"({listed})",
                f"max_connections = {sum(asked.values()) + 10} in postgresql.conf; or smaller "
                "database.pool_size and database.max_overflow",
                about=f"PostgreSQL {server[0]}:{server[1]}",
            )
    return found


async def _revision(database: Database, checked: CheckedService, found: Findings) -> None:
    migrations = Migrations(database, checked.service.migrations)
    is_, heads = await migrations.current(), migrations.heads()
    if heads and is_ != ", ".join(heads):
        found.error(
            "schema-revision",
            f"at revision {is_ or '(none)'}, and the code has {', '.join(heads)}",
            f"glam migrate up {checked.target}",
        )


def _role(checked: CheckedService, facts: DatabaseFacts, found: Findings) -> None:
    if facts.row.unbound and facts.row.policies:
        found.add(
            "database-superuser",
            checked.grave(Severity.ERROR),
            f"{facts.row.role} is a superuser or may bypass row-level security, which "
            f"{', '.join(facts.row.policies)} rely on",
            f"database.user: another role; or: ALTER ROLE {facts.row.role} NOSUPERUSER NOBYPASSRLS",
        )


def _timeouts(checked: CheckedService, found: Findings) -> None:
    settings = checked.settings.database
    for name in (
        "statement_timeout_seconds",
        "lock_timeout_seconds",
        "idle_in_transaction_timeout_seconds",
    ):
        if getattr(settings, name) == 0:
            found.warning(
                "statement-timeout",
                f"database.{name} is 0: PostgreSQL waits for ever",
                f"database.{name}: {type(settings).model_fields[name].default:g}",
            )


def _transactions(facts: DatabaseFacts, found: Findings) -> None:
    for row in facts.long:
        found.warning(
            "long-transaction",
            f"a transaction of {row.name or 'somebody'} (pid {row.pid}, {row.state}) is open for "
            f"{duration(row.age)}",
            f"SELECT pg_terminate_backend({row.pid});",
        )


async def _outbox(
    database: Database, checked: CheckedService, facts: DatabaseFacts, found: Findings
) -> None:
    status = await read_outbox_status(database)
    backlog = status.backlog
    held = [x for x in status.leases if x.owner and (x.expires_in_seconds or 0) > 0]
    free = len(status.leases) - len(held)
    if backlog.count and backlog.oldest_age_seconds >= _WAITS_SECONDS:
        late = backlog.oldest_age_seconds >= _WAITS_LONG_SECONDS
        found.add(
            "outbox-backlog",
            Severity.ERROR if late else Severity.WARNING,
            f"{backlog.count} events wait, the oldest for {duration(backlog.oldest_age_seconds)}",
            f"glam outbox status {checked.target}, and the logs of the service",
        )
    if backlog.failing and facts.failing is not None:
        found.warning(
            "outbox-failing",
            f"{backlog.failing} events failed before; {facts.failing.subject}: "
            f"{facts.failing.last_error}",
            "mend what the error says; they are tried again by themselves",
        )
    if free and (held or backlog.count):
        found.add(
            "outbox-leases",
            Severity.ERROR if not held else Severity.WARNING,
            f"{free} of {len(status.leases)} partitions are held by no live relay, and "
            f"{backlog.count} events wait",
            f"start {checked.name}: glam run {checked.target}"
            if not held
            else "they are taken within lease_seconds; if not, look at the logs of the relays",
        )


def _vacuum(facts: DatabaseFacts, schema: str, found: Findings) -> None:
    if facts.outbox is None:
        return
    options = dict(option.partition("=")[::2] for option in facts.outbox.options)
    off = options.get("autovacuum_enabled") in ("false", "off", "0", "no")
    if off or not facts.row.autovacuum:
        found.error(
            "autovacuum",
            f"autovacuum is off for {'the outbox' if off else 'the whole server'}",
            f"ALTER TABLE {schema}.outbox RESET (autovacuum_enabled);"
            if off
            else "autovacuum = on in postgresql.conf",
        )
    if options.get("autovacuum_vacuum_scale_factor") not in ("0", "0.0"):
        found.warning(
            "autovacuum",
            "the outbox is vacuumed after a share of its rows, which grows with it",
            f"ALTER TABLE {schema}.outbox SET (autovacuum_vacuum_scale_factor = 0, "
            "autovacuum_vacuum_threshold = 5000);",
        )
    if facts.outbox.dead >= max(_DEAD_ROWS, facts.outbox.live):
        found.warning(
            "table-bloat",
            f"the outbox has {facts.outbox.dead} dead rows for {facts.outbox.live} live ones",
            f"VACUUM (ANALYZE) {schema}.outbox; and see what holds vacuum back",
        )


def _connections(checked: CheckedService) -> int:
    settings = checked.settings.database
    each = settings.pool_size + settings.max_overflow + _BESIDE_THE_POOL
    return each * checked.replicas


def _server(checked: CheckedService) -> tuple[str, int]:
    return checked.settings.database.host, checked.settings.database.port


def _now() -> datetime:
    return datetime.now(UTC)
