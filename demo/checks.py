"""The checks at the end: what happened against what had to happen.

Each is a function of plain facts, so each can be shown to fail on wrong ones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.idempotency import idempotency_key

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import timedelta
    from uuid import UUID

    from demo.day import Delivery, Forecast
    from demo.records import Account, Entry, Frozen, Kept
    from demo.sender import Answer
    from shared.dev.trace_tree import SpanRecord
    from shared.messaging import DeadLetter

__all__ = [
    "Check",
    "answers_are_right",
    "each_line_is_debited_once",
    "forged_is_refused",
    "killed_in_the_middle",
    "ledger_sums_to_balance",
    "malformed_is_refused_and_kept",
    "one_mail_for_each_crossing",
    "poison_is_a_dead_letter",
    "story_of",
    "trace_leads_to_the_mail",
]

_TAKEN, _AGAIN = 202, 200


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to hold, whether it did, and the numbers."""

    name: str
    ok: bool
    detail: str


def each_line_is_debited_once(
    lines: Collection[tuple[UUID, str, str]], ledger: Iterable[Entry]
) -> Check:
    """Every line that must be paid for is debited exactly once, and nothing else is."""
    wanted = {
        (merchant_id, idempotency_key(order_id, line_id))
        for merchant_id, order_id, line_id in lines
    }
    debits = Counter((e.merchant_id, e.reference) for e in ledger if e.kind == "debit")
    credits_taken = -sum(e.amount for e in ledger if e.kind == "debit")
    missing = len(wanted - debits.keys())
    unasked = len(debits.keys() - wanted)
    doubled = sum(count > 1 for count in debits.values())
    return Check(
        "each order line debited exactly once",
        not (missing or unasked or doubled) and credits_taken == len(wanted),
        f"{len(wanted):,} lines, {credits_taken:,} credits taken; "
        f"{missing} missing, {doubled} doubled, {unasked} unasked for",
    )


def ledger_sums_to_balance(
    ledger: Iterable[Entry], accounts: Iterable[Account], forecasts: Mapping[UUID, Forecast]
) -> Check:
    """Each ledger sums to its balance, entry by entry, is never negative, and as forecast."""
    running: defaultdict[UUID, int] = defaultdict(int)
    broken = negative = 0
    for entry in ledger:
        running[entry.merchant_id] += entry.amount
        broken += entry.balance != running[entry.merchant_id]
        negative += entry.balance < 0
    balances = {account.merchant_id: account.balance for account in accounts}
    off = sum(running[merchant_id] != balance for merchant_id, balance in balances.items())
    unforeseen = sum(
        balances.get(merchant_id) != forecast.balance for merchant_id, forecast in forecasts.items()
    )
    return Check(
        "ledger sums to the balance, never negative",
        not (broken or negative or off or unforeseen) and balances.keys() == forecasts.keys(),
        f"{len(balances)} accounts; {off} off, {broken} broken entries, {negative} negative, "
        f"{unforeseen} not as forecast",
    )


def crossings_in(ledger: Iterable[Entry], low_balance: int) -> Counter[UUID]:
    """Count, from the running balance, how often each merchant fell to the mark or below."""
    before: dict[UUID, int] = {}
    crossings: Counter[UUID] = Counter()
    for entry in ledger:
        crossings[entry.merchant_id] += (
            before.get(entry.merchant_id, 0) > low_balance >= entry.balance
        )
        before[entry.merchant_id] = entry.balance
    return crossings


def one_mail_for_each_crossing(
    ledger: Iterable[Entry],
    low_balance: int,
    forecasts: Mapping[UUID, Forecast],
    mails: Sequence[tuple[UUID | None, str]],
) -> Check:
    """Each merchant has as many mails as crossings; a mail is (merchant, Message-ID)."""
    crossings = +crossings_in(ledger, low_balance)
    foreseen = +Counter({merchant: forecast.crossings for merchant, forecast in forecasts.items()})
    received = Counter(merchant for merchant, _ in mails)
    again = len(mails) - len({message_id for _, message_id in mails})
    twice = sum(count > 1 for count in crossings.values())
    return Check(
        "exactly one low-balance mail per crossing",
        crossings == foreseen == received and not again,
        f"{foreseen.total()} crossings forecast, {crossings.total()} in the ledger, "
        f"{len(mails)} mails ({again} repeated); {twice} shops crossed twice or more",
    )


def answers_are_right(deliveries: Iterable[Delivery], answers: Iterable[Answer]) -> Check:
    """Each webhook is taken once with 202, and each further copy is answered 200 as a duplicate."""
    copies: Counter[tuple[str, str]] = Counter()
    for delivery in deliveries:
        copies[_id(delivery)] += delivery.copies
    taken: Counter[tuple[str, str]] = Counter()
    again: Counter[tuple[str, str]] = Counter()
    others = 0
    for answer in answers:
        if _id(answer.delivery) not in copies:
            continue
        duplicate = answer.body.get("data", {}).get("duplicate")
        if (answer.status, duplicate) == (_TAKEN, False):
            taken[_id(answer.delivery)] += 1
        elif (answer.status, duplicate) == (_AGAIN, True):
            again[_id(answer.delivery)] += 1
        else:
            others += 1
    right = all(taken[one] == 1 and again[one] == copies[one] - 1 for one in copies)
    return Check(
        "each webhook taken once, copies answered as duplicates",
        right and not others,
        f"{copies.total():,} deliveries of {len(copies):,} webhooks: {taken.total():,} taken, "
        f"{again.total():,} duplicates, {others} others",
    )


def forged_is_refused(forged: Delivery, answers: Iterable[Answer], kept: Iterable[Kept]) -> Check:
    """The delivery with a wrong signature is answered 401 in the envelope, and not kept."""
    answer = _answer_to(forged, answers)
    stored = sum(one.webhook_id == forged.webhook_id for one in kept)
    return Check(
        "bad signature refused",
        _is_error(answer, 401, "UNAUTHORIZED") and not stored,
        f"{_shown(answer)}; kept {stored} times",
    )


def malformed_is_refused_and_kept(
    malformed: Delivery, answers: Iterable[Answer], kept: Iterable[Kept]
) -> Check:
    """The broken body is answered 422 with the reason, and kept byte for byte as rejected."""
    answer = _answer_to(malformed, answers)
    stored = [one for one in kept if one.webhook_id == malformed.webhook_id]
    details = {} if answer is None else (answer.body.get("error") or {}).get("details") or {}
    whole = [(one.status, one.body) for one in stored] == [("rejected", malformed.body)]
    return Check(
        "malformed body refused, and kept",
        _is_error(answer, 422, "VALIDATION_ERROR")
        and bool(details.get("validation_errors"))
        and whole,
        f"{_shown(answer)}; kept {len(stored)} times"
        + (f", {len(malformed.body):,} bytes as they came" if whole else ""),
    )


def poison_is_a_dead_letter(poison: bytes, found: Sequence[DeadLetter]) -> Check:
    """The event that nobody can handle is the one dead letter, byte for byte, with the reason."""
    whole = [dead.body for dead in found] == [poison]
    reasons = {f"{dead.durable}: {str(dead.error_type).rpartition('.')[2]}" for dead in found}
    return Check(
        "poison event in the dead letters, nothing else",
        whole and all(dead.error_message for dead in found),
        f"{len(found)} dead letters" + (f" ({', '.join(sorted(reasons))})" if reasons else ""),
    )


def killed_in_the_middle(frozen: Frozen | None, expected: int) -> Check:
    """When the credit service was killed it had done a part, and was at work on more."""
    name = "credit service killed in the middle of work"
    if frozen is None:
        return Check(name, ok=False, detail="it had finished before it could be killed")
    return Check(
        name,
        # Of a day with a line or two, the very first is the middle.
        min(expected // 3, 1) <= frozen.debits < expected and frozen.unacknowledged > 0,
        f"{frozen.debits:,} of {expected:,} debits done, {frozen.transactions} transactions open, "
        f"{frozen.unacknowledged} events unacknowledged, {frozen.waiting} more waiting",
    )


def story_of(spans: Iterable[SpanRecord]) -> list[SpanRecord]:
    """Return the spans of the plainest trace that leads from a webhook to a mail, or none."""
    traces: defaultdict[str, list[SpanRecord]] = defaultdict(list)
    for span in spans:
        traces[span.trace_id].append(span)
    stories = [trace for trace in traces.values() if _path_to_mail(trace)]
    return min(stories, key=lambda trace: (len(trace), _length(trace)), default=[])


def trace_leads_to_the_mail(story: Collection[SpanRecord]) -> Check:
    """One trace leads, parent by parent, from the webhook to the mail."""
    path = _path_to_mail(story)
    services = list(dict.fromkeys(span.service for span in path))
    took = (path[-1].ended - path[0].started).total_seconds() * 1000 if path else 0
    return Check(
        "one trace from the webhook to the mail",
        bool(path),
        f"{len(story)} spans, {' > '.join(services)}, {took:,.0f} ms"
        if path
        else "no trace leads through all three services",
    )


def _path_to_mail(trace: Collection[SpanRecord]) -> list[SpanRecord]:
    """Return the spans from the webhook's request down to the mail; none if a link is missing."""
    by_id = {span.span_id: span for span in trace}
    mail = next((span for span in trace if span.name == "send mail" and not span.error), None)
    path: list[SpanRecord] = []
    while mail is not None and mail not in path:
        path.insert(0, mail)
        mail = by_id.get(mail.parent_span_id or "")
    services = {"webhook-service", "credit-service", "notification-service"}
    complete = bool(path) and path[0].kind == "server" and path[0].service == "webhook-service"
    return path if complete and services == {span.service for span in path} else []


def _length(trace: Collection[SpanRecord]) -> timedelta:
    return max(span.ended for span in trace) - min(span.started for span in trace)


def _id(delivery: Delivery) -> tuple[str, str]:
    return delivery.shop.domain, delivery.webhook_id


def _answer_to(delivery: Delivery, answers: Iterable[Answer]) -> Answer | None:
    return next((answer for answer in answers if answer.delivery == delivery), None)


def _is_error(answer: Answer | None, status: int, code: str) -> bool:
    if answer is None or answer.status != status:
        return False
    meta: Any = answer.body.get("meta") or {}
    error: Any = answer.body.get("error") or {}
    return error.get("code") == code and bool(error.get("message")) and "request_id" in meta


def _shown(answer: Answer | None) -> str:
    if answer is None:
        return "no answer"
    return f"{answer.status} {(answer.body.get('error') or {}).get('code', 'without an error')}"
