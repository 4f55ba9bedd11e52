"""One examination: everything that can be looked at, looked at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shared.config import ConfigError
from shared.database import Database
from shared.doctor.checked_service import CheckedService
from shared.doctor.checks.consumers import examine_consumers
from shared.doctor.checks.contracts import examine_contracts
from shared.doctor.checks.database import (
    DatabaseFacts,
    examine_connections,
    examine_database,
    look_at_database,
)
from shared.doctor.checks.server import examine_server, judge_clock
from shared.doctor.checks.streams import examine_dead_letters, examine_streams
from shared.doctor.finding import Finding, Findings, Severity
from shared.errors import DatabaseError, GlamBaseError, MessageBusError
from shared.messaging import Bus, Inspection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shared.config import NatsSettings, ServiceSettings
    from shared.service.service import Service


_NAME = "glam-doctor"


async def examine(
    services: Iterable[Service[Any]],
    *,
    settings: Mapping[str, ServiceSettings] | None = None,
    targets: Mapping[str, str] | None = None,
    monitoring: str | None = None,
    replicas: int | None = None,
    long_transaction_seconds: float = 300.0,
) -> list[Finding]:
    """Judge what runs against what the services declare. Nothing is changed.

    What cannot be reached is a finding, and the rest is judged all the same. What was found well is
    reported too, with severity ``ok``.

    Args:
        services: the services, whose own settings say where to look.
        settings: by service name, instead of those that files and environment give.
        targets: by service name, what to type for it after ``glam run``; its name by default.
        monitoring: the NATS server's monitoring endpoint; port 8222 of the server by default.
        replicas: how many of each service run; by default as many as hold a relay now.
        long_transaction_seconds: a transaction open for longer is a finding.
    """
    found, under_check = _admit(services, settings or {}, targets or {}, replicas)
    databases: list[tuple[CheckedService, DatabaseFacts]] = []
    living: list[CheckedService] = []
    for checked in under_check:
        findings, facts, checked = await _database(checked, long_transaction_seconds, replicas)  # noqa: PLW2901
        found += findings
        living.append(checked)
        if facts is not None:
            databases.append((checked, facts))
    found += examine_connections(databases)
    for nats, here in _by_server(living):
        found += await _nats(nats, here, monitoring)
    return found + examine_contracts(under_check).or_well(
        "contracts", "one form and a stream for each"
    )


def _admit(
    services: Iterable[Service[Any]],
    settings: Mapping[str, ServiceSettings],
    targets: Mapping[str, str],
    replicas: int | None,
) -> tuple[list[Finding], list[CheckedService]]:
    found = Findings("settings")
    under_check = []
    for service in services:
        target = targets.get(service.name, service.name)
        try:
            own = settings.get(service.name) or service.load_settings()
        except ConfigError as error:
            fix = f"glam config show {target} --origin"
            found.error("settings", str(error), fix, about=service.name)
        else:
            under_check.append(CheckedService(service, own, target, replicas or 1))
    return found, under_check


async def _database(
    checked: CheckedService, long_seconds: float, replicas: int | None
) -> tuple[list[Finding], DatabaseFacts | None, CheckedService]:
    settings = checked.settings.database
    if not settings.enabled:
        return [], None, checked
    about = f"database {checked.schema}"
    async with Database(settings, schema=checked.schema, application_name=_NAME) as database:
        try:
            await database.ping()
        except DatabaseError as error:
            return [_away("database-unreachable", about, error, checked)], None, checked
        try:
            facts = await look_at_database(database, long_seconds=long_seconds)
            if replicas is None and facts.relays:
                checked = replace(checked, replicas=facts.relays)
            return await examine_database(database, checked, facts), facts, checked
        except (GlamBaseError, FileNotFoundError) as error:
            return [_unseen(about, error)], None, checked


async def _nats(
    nats: NatsSettings, under_check: Sequence[CheckedService], monitoring: str | None
) -> list[Finding]:
    bus = Bus(nats, name=_NAME)
    try:
        await bus.open()
    except MessageBusError as error:
        return [_away("nats-unreachable", f"NATS {', '.join(nats.servers)}", error, under_check[0])]
    try:
        return await _jetstream(Inspection(bus), under_check, monitoring)
    finally:
        await bus.close()


async def _jetstream(
    inspection: Inspection, under_check: Sequence[CheckedService], monitoring: str | None
) -> list[Finding]:
    try:
        server = await inspection.server()
        of_server = await examine_server(inspection, under_check, monitoring=monitoring)
    except MessageBusError as error:
        fix = "nats-server's configuration: jetstream { store_dir: /data }"
        return [Finding("jetstream-off", Severity.ERROR, "server", str(error), fix)]
    found: list[Finding] = of_server
    try:
        streams, there = await examine_streams(inspection, under_check)
        if there:
            clock = min(there, key=lambda facts: facts.clock_accuracy_seconds)
            judge_clock(of_server, clock.clock_ahead_seconds, clock.clock_accuracy_seconds)
        found = [*of_server.or_well("server", "it has what is needed"), *streams]
        found += await examine_consumers(inspection, under_check, there, server)
        found += await examine_dead_letters(inspection, under_check)
    except MessageBusError as error:
        found.append(_unseen("JetStream", error))
    return found


def _by_server(
    under_check: Sequence[CheckedService],
) -> list[tuple[NatsSettings, list[CheckedService]]]:
    """Put those together that log in at the same servers in the same way."""
    own: dict[str, object] = {
        "replicas": 1,
        "dedupe_window_seconds": 120.0,
        "claim_check_bytes": None,
        "streams": {},
    }
    groups: list[tuple[NatsSettings, list[CheckedService]]] = []
    for checked in under_check:
        nats = checked.settings.nats.model_copy(update=own)
        for known, here in groups:
            if known == nats:
                here.append(checked)
                break
        else:
            groups.append((nats, [checked]))
    return groups


def _away(code: str, about: str, error: GlamBaseError, checked: CheckedService) -> Finding:
    fix = f"glam config show {checked.target} --origin (is it the right address, and does it run?)"
    return Finding(code, Severity.ERROR, about, str(error), fix)


def _unseen(about: str, error: Exception) -> Finding:
    fix = "let the role of the service read it, and look again"
    return Finding("not-looked-at", Severity.ERROR, about, str(error), fix)
