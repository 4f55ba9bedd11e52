"""The streams: as declared, with room, and remembering for long enough."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.doctor.checked_service import duration
from shared.doctor.finding import Finding, Findings, Severity
from shared.events.streams import overlap
from shared.messaging.dead_letters.dead_letter import MAX_AGE_SECONDS
from shared.messaging.dead_letters.store import STREAM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.doctor.checked_service import CheckedService
    from shared.events.streams import StreamDefinition
    from shared.messaging import Inspection, RetryPolicy, StreamFacts
    from shared.service.handlers import Handler


_FILLING, _NEARLY_FULL = 0.8, 0.95

# What of a stream a service would change at its next start, by code; others are limits.
_WIDENED = {
    "subjects": ("stream-subjects", Severity.ERROR),
    "num_replicas": ("stream-replicas", Severity.WARNING),
    "duplicate_window": ("dedupe-window", Severity.WARNING),
    "allow_rollup_hdrs": ("stream-features", Severity.WARNING),
    "allow_msg_ttl": ("stream-features", Severity.WARNING),
    "allow_msg_schedules": ("stream-features", Severity.WARNING),
    "allow_atomic": ("stream-features", Severity.WARNING),
}
_LOST = {
    "allow_rollup_hdrs": "late relays are not fenced out",
    "allow_msg_ttl": "messages have no time to live",
    "allow_msg_schedules": "long pauses before a retry count against max_ack_pending",
    "allow_atomic": "the outbox is not published in atomic batches",
}


async def examine_streams(
    inspection: Inspection, under_check: Sequence[CheckedService]
) -> tuple[list[Finding], list[StreamFacts]]:
    """Judge every stream that the services publish to or read from.

    Raises:
        MessageBusError: JetStream does not answer.
    """
    found: list[Finding] = []
    there: list[StreamFacts] = []
    for stream in dict.fromkeys(name for checked in under_check for name in checked.streams()):
        users = [checked for checked in under_check if stream in checked.streams()]
        its = Findings(f"stream {stream}")
        facts = await inspection.stream(stream)
        if facts is None:
            await _missing(inspection, stream, users, its)
            found += its
            continue
        there.append(facts)
        _as_declared(inspection, facts, users, its)
        _copies(facts, users, its)
        _room(facts, its)
        _memory(facts, users, its)
        found += its.or_well("stream", f"as declared; {facts.messages} messages")
    return found, there


async def examine_dead_letters(
    inspection: Inspection, under_check: Sequence[CheckedService]
) -> list[Finding]:
    """Judge what could not be handled.

    Raises:
        MessageBusError: JetStream does not answer.
    """
    facts = await inspection.stream(STREAM)
    if facts is None or facts.first_at is None:
        return []
    ours = {h.durable(p.name): p for p in under_check for h in p.service.handlers}
    counts: dict[str, int] = {}
    for subject, count in (await inspection.counts(STREAM, "dlq.>")).items():
        durable = subject.rpartition(".")[2]
        if durable in ours:
            counts[durable] = counts.get(durable, 0) + count
    age = (datetime.now(UTC) - facts.first_at).total_seconds()
    found = Findings("dead letters")
    for durable, count in sorted(counts.items()):
        found.add(
            "dead-letters",
            Severity.ERROR if age > _FILLING * MAX_AGE_SECONDS else Severity.WARNING,
            f"{count} dead letters; the oldest of all is {duration(age)} old, and is dropped "
            f"after {duration(MAX_AGE_SECONDS)}",
            "glam dlq list, then: glam dlq replay NUMBER, or: glam dlq discard NUMBER",
            about=f"consumer {durable}",
        )
    return found


async def _missing(
    inspection: Inspection, stream: str, users: Sequence[CheckedService], found: Findings
) -> None:
    subjects = {subject for user in users for subject in user.streams()[stream].subjects}
    holders = {
        name: taken
        for name, theirs in (await inspection.holders()).items()
        if (taken := [s for s in theirs if any(overlap(s, wanted) for wanted in subjects)])
    }
    if holders:
        listed = "; ".join(f"{name} takes {', '.join(taken)}" for name, taken in holders.items())
        found.error(
            "stream-subjects",
            f"it cannot be created, for another stream has its subjects: {listed}",
            f"Contract(..., stream={next(iter(holders))!r}) where they are declared; or: "
            f"nats stream edit {next(iter(holders))} --subjects=..., without these",
        )
    elif all(user.streams()[stream].external for user in users):
        found.error(
            "stream-missing",
            f"it is not there; {_names(users)} wait for it, and somebody else looks after it",
            f"nats stream add {stream} --subjects={','.join(sorted(subjects))}",
        )
    else:
        found.error(
            "stream-missing",
            f"it is not there; {_names(users)} declare it",
            f"start a service that declares it, and it is created: glam run {users[0].target}",
        )


def _as_declared(
    inspection: Inspection, facts: StreamFacts, users: Sequence[CheckedService], found: Findings
) -> None:
    definitions: dict[StreamDefinition, list[CheckedService]] = {}
    for user in users:
        definitions.setdefault(user.streams()[facts.name], []).append(user)
    for definition, theirs in definitions.items():
        if not definition.external:
            drifted = _as_defined(inspection, facts, definition, theirs)
            found += [finding for finding in drifted if finding not in found]


def _as_defined(
    inspection: Inspection,
    facts: StreamFacts,
    definition: StreamDefinition,
    users: Sequence[CheckedService],
) -> Findings:
    most = max((user.settings.nats for user in users), key=lambda nats: nats.replicas)
    window = max(user.settings.nats.dedupe_window_seconds for user in users)
    wanted = most.model_copy(update={"dedupe_window_seconds": window})
    diff = inspection.stream_diff(facts, definition, wanted)
    found = Findings(f"stream {facts.name}")
    for each in diff.refused.values():
        found.error("stream-refused", each, each.partition(": ")[2])
    for field, change in diff.changes.items():
        code, severity = _WIDENED.get(field, ("stream-limits", Severity.WARNING))
        lost = f": {_LOST[field]}" if field in _LOST else ""
        copies = definition.replicas or most.replicas
        edit = f"; or: nats stream edit {facts.name} --replicas={copies}"
        found.add(
            code,
            severity,
            f"{field} is to become {change}{lost}",
            f"restart one of {_names(users)}, which widens it"
            + (edit if field == "num_replicas" else ""),
        )
    for each in diff.left.values():
        found.warning("stream-drift", each, each.partition(": ")[2])
    return found


def _copies(facts: StreamFacts, users: Sequence[CheckedService], found: Findings) -> None:
    if facts.config.get("num_replicas") == 1 and any(user.in_production for user in users):
        found.warning(
            "stream-single-copy",
            "one copy, on one server",
            "nats.replicas: 3 (in a cluster of three servers or more), then restart",
        )
    if facts.leader is None:
        found.error(
            "stream-leader",
            "nobody leads it: more than half of its copies are away",
            f"nats server report jetstream, then: nats stream cluster step-down {facts.name}",
        )
    behind = [r for r in facts.replicas if r.offline or not r.current]
    if behind:
        listed = ", ".join(f"{r.name} ({'offline' if r.offline else 'behind'})" for r in behind)
        found.warning(
            "stream-copies",
            f"of its copies these are not current: {listed}",
            f"nats stream info {facts.name}; bring its server back",
        )


def _room(facts: StreamFacts, found: Findings) -> None:
    drops = facts.config.get("discard") != "new"
    for field, used in (("max_bytes", facts.bytes), ("max_msgs", facts.messages)):
        limit = int(facts.config.get(field) or -1)
        if limit > 0 and used >= _FILLING * limit:
            found.add(
                "stream-full",
                Severity.ERROR if used >= _NEARLY_FULL * limit else Severity.WARNING,
                f"{used} of {limit} ({field}); when it is full it "
                + ("drops its oldest messages" if drops else "refuses new ones"),
                f"nats stream edit {facts.name} --{field.replace('_', '-')}={2 * limit}",
            )


def _memory(facts: StreamFacts, users: Sequence[CheckedService], found: Findings) -> None:
    """Judge for how long the stream, its consumers' inboxes and its outboxes remember."""
    max_age, window = facts.max_age_seconds, facts.dedupe_seconds
    for user in users:
        delivery, handlers = user.settings.delivery, list(user.handlers_of(facts.name))
        publishes = user.publishes_to(facts.name)
        takeover = delivery.lease_seconds + delivery.poll_seconds
        if publishes and window < takeover:
            found.warning(
                "dedupe-window",
                f"it knows a message again for {duration(window)}, and another relay of "
                f"{user.name} takes over after {duration(takeover)} "
                "(delivery.lease_seconds + poll_seconds): what was stored and not marked is "
                "stored twice. Fences refuse the late relay, not the one that takes over",
                f"nats.dedupe_window_seconds: {max(120, 2 * takeover):g}",
            )
        for handler in handlers:
            if 0 < max_age < (horizon := _horizon(handler)):
                found.error(
                    "stream-max-age",
                    f"attempts and pauses may take {duration(horizon)}, and {facts.name} keeps a "
                    f"message for {duration(max_age)}",
                    "fewer attempts, shorter pauses or less outage_seconds in "
                    "retry=RetryPolicy(...)",
                    about=f"consumer {handler.durable(user.name)}",
                )
        once = [h for h in handlers if h.transactional]
        inbox = delivery.inbox_retention_hours * 3600
        if once and inbox < max_age:
            found.error(
                "inbox-retention",
                f"it may deliver a message for {duration(max_age)}, and the inbox of "
                f"{user.name} forgets after {duration(inbox)}; the service does not start",
                f"delivery.inbox_retention_hours: {max_age / 3600:g}",
            )
        elif once and max_age == 0:
            found.warning(
                "inbox-retention",
                f"it keeps messages for ever, and the inbox of {user.name} forgets after "
                f"{duration(inbox)}",
                f"nats stream edit {facts.name} --max-age=7d",
            )
        elif once and inbox < MAX_AGE_SECONDS:
            found.note(
                "inbox-replay",
                f"dead letters may be replayed for {duration(MAX_AGE_SECONDS)}, and the inbox "
                f"of {user.name} forgets after {duration(inbox)}",
                f"delivery.inbox_retention_hours: {MAX_AGE_SECONDS / 3600:g}",
            )
        if again := [h.durable(user.name) for h in handlers if not h.transactional]:
            found.note(
                "dedupe-outage",
                f"a relay that dies between storing and marking, with none to take over for "
                f"{duration(window)}, stores a message twice; without an inbox: {', '.join(again)}",
                "take a UnitOfWork in the handler, or make it idempotent",
            )
        kept = delivery.outbox_retention_hours * 3600
        if publishes and user.settings.database.enabled and (max_age == 0 or kept < max_age):
            whole = "for ever" if max_age == 0 else f"for {duration(max_age)}"
            found.note(
                "outbox-retention",
                f"it keeps messages {whole}, the outbox of {user.name} for {duration(kept)}",
                f"delivery.outbox_retention_hours: {(max_age or 2 * kept) / 3600:g}",
            )


def _horizon(handler: Handler) -> float:
    """Return how long a message may be tried, at the longest, in seconds."""
    retry: RetryPolicy = handler.retry
    grown, pauses = retry.first_delay_seconds, 0.0
    for _ in range(retry.attempts - 1):
        pauses += min(grown, retry.max_delay_seconds) * (1 + retry.jitter)
        grown = min(grown * retry.factor, retry.max_delay_seconds)
    attempt = handler.deadline_seconds or handler.ack_wait_seconds
    return pauses + retry.attempts * attempt + retry.outage_seconds


def _names(users: Sequence[CheckedService]) -> str:
    return ", ".join(user.name for user in users)
