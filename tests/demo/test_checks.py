"""Each check of the demonstration says FAILED on facts that are wrong."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from demo import checks
from demo.day import Credits, Day, Delivery, Forecast, plan
from demo.orders import make_orders
from demo.records import Account, Entry, Frozen, Kept
from demo.sender import Answer
from shared.dev.trace_tree import SpanRecord
from shared.idempotency import idempotency_key
from shared.messaging import DeadLetter

if TYPE_CHECKING:
    from demo.checks import Check

SHOP = uuid4()
RULES = Credits(trial=5, low_balance=3, renewal=4)
LINES = [(SHOP, "o1", "l1"), (SHOP, "o1", "l2")]


def ledger() -> list[Entry]:
    return [
        Entry(SHOP, 1, "trial", "trial", 5, 5),
        Entry(SHOP, 2, "debit", idempotency_key("o1", "l1"), -1, 4),
        Entry(SHOP, 3, "debit", idempotency_key("o1", "l2"), -1, 3),
    ]


def forecast() -> dict[UUID, Forecast]:
    expected = Forecast(RULES, balance=5)
    expected.debit(2)
    return {SHOP: expected}


def test_debits_are_right() -> None:
    assert checks.each_line_is_debited_once(LINES, ledger()).ok


@pytest.mark.parametrize(
    "wrong",
    [
        ledger()[:2],
        [*ledger(), Entry(SHOP, 4, "debit", idempotency_key("o1", "l2"), -1, 2)],
        [*ledger(), Entry(SHOP, 4, "debit", idempotency_key("o9", "l9"), -1, 2)],
    ],
    ids=["missing", "doubled", "unasked for"],
)
def test_a_debit_that_is_wrong_is_found(wrong: list[Entry]) -> None:
    assert not checks.each_line_is_debited_once(LINES, wrong).ok


def test_ledger_is_right() -> None:
    assert checks.ledger_sums_to_balance(ledger(), [Account(SHOP, 3)], forecast()).ok


@pytest.mark.parametrize(
    ("entries", "accounts"),
    [
        (ledger(), [Account(SHOP, 4)]),
        (ledger(), []),
        ([*ledger()[:2], ledger()[2]._replace(balance=2)], [Account(SHOP, 3)]),
        ([Entry(SHOP, 1, "debit", "x", -1, -1)], [Account(SHOP, -1)]),
    ],
    ids=["balance off", "account missing", "entry broken", "negative"],
)
def test_a_ledger_that_is_wrong_is_found(entries: list[Entry], accounts: list[Account]) -> None:
    assert not checks.ledger_sums_to_balance(entries, accounts, forecast()).ok


def test_mails_are_right() -> None:
    check = checks.one_mail_for_each_crossing(ledger(), 3, forecast(), [(SHOP, "<1>")])
    assert check.ok, check.detail


@pytest.mark.parametrize(
    "mails",
    [[], [(SHOP, "<1>"), (SHOP, "<2>")], [(SHOP, "<1>"), (SHOP, "<1>")], [(None, "<1>")]],
    ids=["none", "one too many", "repeated", "to a stranger"],
)
def test_a_mail_too_few_or_too_many_is_found(mails: Sequence[tuple[UUID | None, str]]) -> None:
    assert not checks.one_mail_for_each_crossing(ledger(), 3, forecast(), mails).ok


@pytest.fixture(scope="module")
def day() -> Day:
    chance = random.Random(1)
    return plan(make_orders(12, chance), chance)


def answered(delivery: Delivery, status: int, *, duplicate: bool) -> Answer:
    return Answer(delivery, status, {"data": {"duplicate": duplicate}})


def test_webhooks_are_taken_once(day: Day) -> None:
    delivery = replace(day.deliveries[0], copies=2)
    first, second = (
        answered(delivery, 202, duplicate=False),
        answered(delivery, 200, duplicate=True),
    )
    assert checks.answers_are_right([delivery], [first, second]).ok
    assert not checks.answers_are_right([delivery], [first, first]).ok
    assert not checks.answers_are_right([delivery], [second, second]).ok
    assert not checks.answers_are_right([delivery], [first]).ok


def refused(delivery: Delivery, status: int, code: str) -> Answer:
    details = {"validation_errors": [{"field": "id"}]}
    error = {"code": code, "message": "no", "details": details}
    return Answer(delivery, status, {"error": error, "meta": {"request_id": "req_1"}})


def test_a_forged_webhook_that_is_taken_or_kept_is_found(day: Day) -> None:
    forged = day.forged
    right = refused(forged, 401, "UNAUTHORIZED")
    assert checks.forged_is_refused(forged, [right], []).ok
    assert not checks.forged_is_refused(forged, [answered(forged, 202, duplicate=False)], []).ok
    kept = Kept(forged.webhook_id, "accepted", forged.body)
    assert not checks.forged_is_refused(forged, [right], [kept]).ok
    bare = Answer(forged, 401, {"detail": "no envelope"})
    assert not checks.forged_is_refused(forged, [bare], []).ok


def test_a_malformed_webhook_that_is_not_kept_whole_is_found(day: Day) -> None:
    malformed = day.malformed
    right = refused(malformed, 422, "VALIDATION_ERROR")
    kept = Kept(malformed.webhook_id, "rejected", malformed.body)
    assert checks.malformed_is_refused_and_kept(malformed, [right], [kept]).ok
    assert not checks.malformed_is_refused_and_kept(malformed, [right], []).ok
    altered = kept._replace(body=malformed.body + b" ")
    assert not checks.malformed_is_refused_and_kept(malformed, [right], [altered]).ok


def letter(body: bytes) -> DeadLetter:
    return DeadLetter(
        sequence=1,
        subject="evt.order.updated",
        body=body,
        headers={},
        stream="WEBHOOKS",
        stream_sequence=1,
        durable="credit-service-debit_order",
        service="credit-service",
        reason="no attempt can help",
        error_type="ValueError",
        error_message="no",
        fingerprint=None,
        attempts=1,
        at=datetime.now(UTC),
    )


def test_dead_letters_other_than_the_poison_are_found() -> None:
    assert checks.poison_is_a_dead_letter(b"poison", [letter(b"poison")]).ok
    assert not checks.poison_is_a_dead_letter(b"poison", []).ok
    assert not checks.poison_is_a_dead_letter(b"poison", [letter(b"poison"), letter(b"other")]).ok


@pytest.mark.parametrize(
    ("frozen", "ok"),
    [
        (Frozen(debits=5, transactions=1, unacknowledged=2, waiting=3), True),
        (Frozen(debits=0, transactions=0, unacknowledged=2, waiting=3), False),
        (Frozen(debits=10, transactions=0, unacknowledged=2, waiting=3), False),
        (Frozen(debits=5, transactions=0, unacknowledged=0, waiting=3), False),
        (None, False),
    ],
)
def test_a_kill_outside_of_the_work_is_found(frozen: Frozen | None, ok: bool) -> None:
    assert checks.killed_in_the_middle(frozen, 10).ok is ok


def spans() -> list[SpanRecord]:
    started = datetime.now(UTC)
    steps = [
        ("POST /", "server", "webhook-service"),
        ("publish", "producer", "webhook-service"),
        ("handle", "consumer", "credit-service"),
        ("send mail", "client", "notification-service"),
    ]
    return [
        SpanRecord(
            name=name,
            kind=kind,
            service=service,
            trace_id="t",
            span_id=str(number),
            parent_span_id=str(number - 1) if number else None,
            started=started,
            duration_ms=1.0,
            error=None,
        )
        for number, (name, kind, service) in enumerate(steps)
    ]


def test_a_trace_with_a_missing_link_is_found() -> None:
    assert checks.trace_leads_to_the_mail(checks.story_of(spans())).ok
    broken: Check = checks.trace_leads_to_the_mail(checks.story_of([*spans()[:2], spans()[3]]))
    assert not broken.ok
