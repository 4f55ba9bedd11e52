"""The consumers: one for each handler, at work, and none that nobody reads."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.doctor.checked_service import duration
from shared.doctor.finding import Finding, Findings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shared.doctor.checked_service import CheckedService
    from shared.messaging import ConsumerFacts, Inspection, ServerFacts, StreamFacts
    from shared.service.handlers import Handler


_LATE_SECONDS = 300.0
_SHORT_ACK_WAIT_SECONDS = 2.0
_LOOK_AGAIN_SECONDS = 1.0
_MANY_REDELIVERED, _MOST = 10, 0.5
_NANOSECONDS = 1_000_000_000

_NEVER_MIND = frozenset({"filter_subjects", "filter_subject", "max_deliver"})


async def examine_consumers(
    inspection: Inspection,
    under_check: Sequence[CheckedService],
    streams: Iterable[StreamFacts],
    server: ServerFacts,
) -> list[Finding]:
    """Judge the consumers of the services on the streams that are there.

    Raises:
        MessageBusError: JetStream does not answer.
    """
    found: list[Finding] = []
    known = {h.durable(p.name) for p in under_check for h in p.service.handlers}
    for stream in streams:
        there = await inspection.consumers(stream.name)
        for checked in under_check:
            for handler in checked.handlers_of(stream.name):
                durable = handler.durable(checked.name)
                found += await _consumer(
                    inspection, checked, handler, there.get(durable), stream, server
                )
        for facts in there.values():
            if facts.name not in known and (owner := _owner(facts.name, under_check)):
                orphan = Findings(f"consumer {facts.name}")
                orphan.warning(
                    "consumer-orphan",
                    f"no handler of {owner.name} has this name; {facts.pending} messages of "
                    f"{facts.stream} wait for it (a renamed handler begins anew: keep its name=)",
                    f"nats consumer rm {facts.stream} {facts.name}",
                )
                found += orphan
    return found


async def _consumer(
    inspection: Inspection,
    checked: CheckedService,
    handler: Handler,
    facts: ConsumerFacts | None,
    stream: StreamFacts,
    server: ServerFacts,
) -> list[Finding]:
    found = Findings(f"consumer {handler.durable(checked.name)}")
    _declared(inspection, checked, handler, stream, server, found)
    if facts is None:
        found.error(
            "consumer-missing",
            f"it is not there; {stream.name} has {stream.messages} messages for it to begin with",
            f"start the service, which creates it: glam run {checked.target}",
        )
        return found
    _config(inspection, checked, handler, facts, found)
    await _work(inspection, checked, handler, facts, found)
    return found.or_well("consumer", f"{facts.pending} wait, {facts.ack_pending} out")


def _declared(
    inspection: Inspection,
    checked: CheckedService,
    handler: Handler,
    stream: StreamFacts,
    server: ServerFacts,
    found: Findings,
) -> None:
    """Judge what the handler declares against what server and stream allow."""
    asked = inspection.ack_pending_of(checked.subscription(handler))
    for where, limit in (
        ("the account", server.max_ack_pending),
        (stream.name, (stream.config.get("consumer_limits") or {}).get("max_ack_pending")),
    ):
        if limit and 0 < limit < asked:
            found.error(
                "ack-pending-limit",
                f"it asks for {asked} unacknowledged messages, and {where} allows {limit}",
                f"raise max_ack_pending of {where} to {asked}"
                + ("" if where == "the account" else f": nats stream edit {where}"),
            )
    if handler.ack_wait_seconds < _SHORT_ACK_WAIT_SECONDS:
        found.warning(
            "consumer-ack-wait",
            f"ack_wait_seconds is {handler.ack_wait_seconds:g}: a process that stands still "
            "for so long has lost its messages to another one",
            "ack_wait_seconds=30 (a handler may take longer: heartbeats are sent for it)",
        )


def _config(
    inspection: Inspection,
    checked: CheckedService,
    handler: Handler,
    facts: ConsumerFacts,
    found: Findings,
) -> None:
    restart = f"restart {checked.name}, which changes it"
    diff = inspection.consumer_diff(facts, checked.subscription(handler))
    filters = facts.config.get("filter_subjects") or facts.config.get("filter_subject")
    if {"filter_subject", "filter_subjects"} & diff.keys():
        found.error(
            "consumer-filter",
            f"it reads {filters or 'all subjects'}, and its handler {handler.contract.subject}",
            restart,
        )
    if "max_deliver" in diff:
        found.error(
            "consumer-max-deliver",
            f"the server gives up after {facts.config.get('max_deliver')} deliveries",
            f"{restart}; or: nats consumer edit {facts.stream} {facts.name} --max-deliver=-1",
        )
    rest = {name: values for name, values in diff.items() if name not in _NEVER_MIND}
    needed = handler.concurrency * checked.replicas
    if 0 < facts.max_ack_pending < needed:
        rest.pop("max_ack_pending", None)
        found.warning(
            "consumer-ack-pending",
            f"{facts.max_ack_pending} messages may be out, and {checked.replicas} replicas of "
            f"{handler.concurrency} handle {needed}",
            restart,
        )
    if rest:
        differing = ", ".join(
            f"{name} is {_value(name, is_)}, declared {_value(name, wanted)}"
            for name, (is_, wanted) in rest.items()
        )
        found.warning("consumer-config", differing, restart)


async def _work(
    inspection: Inspection,
    checked: CheckedService,
    handler: Handler,
    facts: ConsumerFacts,
    found: Findings,
) -> None:
    if facts.paused_seconds > 0:
        found.warning(
            "consumer-paused",
            f"paused for another {duration(facts.paused_seconds)}; {facts.pending} wait",
            f"nats consumer resume {facts.stream} {facts.name}",
        )
        return
    if 0 < facts.max_ack_pending <= facts.ack_pending and not await _moves(inspection, facts):
        found.error(
            "consumer-stuck",
            f"{facts.ack_pending} of {facts.max_ack_pending} messages are out, none of them "
            f"came back within {duration(_LOOK_AGAIN_SECONDS)}, and {facts.pending} wait",
            f"find what hangs (GET /subscribers); then: nats consumer edit {facts.stream} "
            f"{facts.name} --max-pending={2 * facts.max_ack_pending}",
        )
    if facts.pending and not facts.waiting and not facts.ack_pending:
        pin = f"; the server waits for {facts.pinned}, which is silent" if facts.pinned else ""
        found.error(
            "consumer-unread",
            f"{facts.pending} messages wait, and nobody asks for them{pin}",
            f"start {checked.name}: glam run {checked.target}",
        )
    elif facts.pending:
        stored = await inspection.stored_at(
            facts.stream, handler.contract.subject, facts.delivered_stream_sequence + 1
        )
        age = (datetime.now(UTC) - stored).total_seconds() if stored else 0.0
        if age >= _LATE_SECONDS:
            found.warning(
                "consumer-backlog",
                f"{facts.pending} messages wait, the next one for {duration(age)}",
                f"more replicas of {checked.name}, or concurrency={2 * handler.concurrency}",
            )
    if facts.redelivered >= _MANY_REDELIVERED and facts.redelivered >= _MOST * max(
        facts.ack_pending, 1
    ):
        found.warning(
            "consumer-redelivered",
            f"{facts.redelivered} of the {facts.ack_pending} messages that are out came before",
            "look for what fails: glam dlq list, and the logs of the service",
        )


async def _moves(inspection: Inspection, before: ConsumerFacts) -> bool:
    """Tell whether anything was delivered or acknowledged since."""
    await asyncio.sleep(_LOOK_AGAIN_SECONDS)
    now = (await inspection.consumers(before.stream)).get(before.name)
    return now is None or (now.ack_floor, now.delivered, now.ack_pending) != (
        before.ack_floor,
        before.delivered,
        before.ack_pending,
    )


def _owner(durable: str, under_check: Sequence[CheckedService]) -> CheckedService | None:
    """Return the service whose name the durable begins with, the longest of them."""
    owners = [p for p in under_check if durable.startswith(f"{p.name}-")]
    return max(owners, key=lambda checked: len(checked.name), default=None)


def _value(name: str, value: object) -> str:
    if value in (None, [], ""):
        return "not set"
    if name in ("ack_wait", "inactive_threshold", "priority_timeout") and isinstance(value, int):
        return duration(value / _NANOSECONDS)
    return str(value)
