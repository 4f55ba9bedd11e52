from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from shared.config import LoggingSettings
from shared.context import Context, TraceContext, bind
from shared.logging import ConsoleFormatter, JsonFormatter, configure_logging, create_logger
from shared.logging.record import DirectRecord

Lines = Callable[[], list[dict[str, Any]]]

CONTEXT = Context.start(
    request_id="req_1",
    correlation_id="corr-1",
    trace=TraceContext("a" * 32, "b" * 16),
    user_id="u1",
    tenant_id="t1",
)


def test_a_line_has_the_documented_fields_in_order(lines: Lines) -> None:
    with bind(CONTEXT):
        logging.getLogger("any").info("debited %d", 5, extra={"merchant_id": "m"})
    (line,) = lines()
    moment = datetime.fromisoformat(line.pop("timestamp"))
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert list(line.items()) == [
        ("service", "credit-service"),
        ("level", "INFO"),
        ("message", "debited 5"),
        ("environment", "prod"),
        ("request_id", "req_1"),
        ("correlation_id", "corr-1"),
        ("trace_id", "a" * 32),
        ("span_id", "b" * 16),
        ("user_id", "u1"),
        ("tenant_id", "t1"),
        ("logger", "any"),
        ("merchant_id", "m"),
    ]


def test_the_time_is_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.makeLogRecord({"msg": "hello", "created": 86_400.5})
    with monkeypatch.context() as machine:
        machine.setenv("TZ", "JST-9")
        time.tzset()
        line = json.loads(JsonFormatter("credit-service").format(record))
    time.tzset()
    assert line["timestamp"] == "1970-01-02T00:00:00.500000+00:00"


def test_outside_of_any_context_there_are_no_ids(lines: Lines) -> None:
    logging.getLogger("any").info("free")
    assert not {"request_id", "trace_id", "correlation_id", "user_id"} & set(lines()[0])


def test_an_id_given_with_the_call_goes_before_the_context_s(lines: Lines) -> None:
    with bind(CONTEXT):
        logging.getLogger("any").info("x", extra={"trace_id": "c" * 32})
    assert lines()[0]["trace_id"] == "c" * 32


def test_a_field_cannot_pass_for_the_service_or_the_message(lines: Lines) -> None:
    create_logger("any").info("real", service="forged", level="forged", timestamp="t", message="m")
    (line,) = lines()
    assert (line["service"], line["level"], line["message"]) == ("credit-service", "INFO", "real")
    assert line["field_service"] == line["field_level"] == "forged"
    assert line["field_message"] == "m"


class Colour(str, Enum):  # noqa: UP042 - its str() is not its value
    RED = "red"


class Card(BaseModel):
    number: Decimal
    pin: SecretStr
    api_key: str


@dataclass
class Point:
    x: int
    password: str


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_any_object_can_be_logged(lines: Lines) -> None:
    loop: dict[str, object] = {}
    loop["self"] = loop
    create_logger("any").info(
        "objects",
        id=UUID(int=1),
        price=Decimal("1.10"),
        when=datetime(2026, 1, 2, tzinfo=UTC),
        wait=timedelta(seconds=1.5),
        colour=Colour.RED,
        card=Card(number=Decimal(4), pin=SecretStr("1234"), api_key="k"),
        point=Point(1, "hunter2"),
        kinds={int: {(1, 2): {3}}},
        raw=b"\xff\x00",
        bad=ValueError("x"),
        hostile=Hostile(),
        loop=loop,
        nan=float("nan"),
        surrogate="\ud800",
        none=None,
    )
    (line,) = lines()
    expected = {
        "id": str(UUID(int=1)),
        "price": "1.10",
        "when": "2026-01-02T00:00:00+00:00",
        "wait": 1.5,
        "colour": "red",
        "card": {"number": "4", "pin": "**********", "api_key": "**********"},
        "point": {"x": 1, "password": "**********"},
        "kinds": {"<class 'int'>": {"(1, 2)": [3]}},
        "raw": "\\xff\x00",
        "bad": "ValueError: x",
        "hostile": "<Hostile that cannot be shown>",
        "nan": "nan",
        "surrogate": "\ud800",
        "none": None,
    }
    assert {name: line[name] for name in expected} == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
)


@given(message=st.text(), value=JSON, name=st.text())
def test_a_line_is_always_one_line_of_json(message: str, value: object, name: str) -> None:
    record = logging.LogRecord("any", logging.INFO, "f", 1, message, None, None)
    record.glam_fields = {name: value}
    text = JsonFormatter("credit-service", environment="prod").format(record)
    assert len(text.splitlines()) <= 1 + sum(text.count(c) for c in "\x85\u2028\u2029")
    assert "\n" not in text
    assert json.loads(text)["service"] == "credit-service"
    assert "\n" not in ConsoleFormatter("credit-service").format(record)


@pytest.mark.parametrize(
    ("message", "argument", "shown"),
    [
        ("%d of %s", "one", "%d of %s ['one']"),
        ("%s", Hostile(), "%s ['<Hostile that cannot be shown>']"),
        ("%s", "Bearer hunter2", "Bearer **********"),
    ],
)
def test_arguments_that_do_not_fit_do_not_raise(message: str, argument: object, shown: str) -> None:
    record = logging.LogRecord("any", logging.INFO, "f", 1, message, (argument,), None)
    assert json.loads(JsonFormatter("credit-service").format(record))["message"] == shown
    assert shown in ConsoleFormatter("credit-service").format(record)


def test_secrets_are_hidden_by_name_and_by_look(lines: Lines) -> None:
    logger = create_logger("any")
    logger.info(
        "calling %s with Bearer %s",
        "postgresql://me:hunter2@db/x",
        "hunter2hunter2",
        headers={"Authorization": "hunter2", "Cookie": "hunter2", "Accept": "text/plain"},
        nested=[{"api_key": "hunter2"}],
        url="nats://u:hunter2@n",
        extra={"access_token": "hunter2"},
    )
    try:
        raise ValueError("connect to postgresql://me:hunter2@db/x failed")
    except ValueError:
        logger.exception("no")
    written = lines()
    assert "hunter2" not in json.dumps(written)
    assert written[0]["headers"]["Accept"] == "text/plain"
    assert "ValueError: connect to postgresql://me:" in written[1]["exception"]


def test_the_console_line_is_for_a_person() -> None:
    record = logging.LogRecord("any", logging.WARNING, "f", 1, "two\nlines \x1b[2J", None, None)
    record.glam_fields = {"merchant": "a b", "n": 3}
    record.created = 0.0
    with bind(Context.start(request_id="req_1", trace=TraceContext("a" * 32, "b" * 16))):
        line = ConsoleFormatter("credit-service").format(record)
    assert line == (
        "00:00:00.000 WARNING  credit-service  two\\nlines \\x1b[2J"
        f"  request_id=req_1 trace_id={'a' * 32} merchant='a b' n=3"
    )


def test_an_exception_stands_below_the_console_line(capsys: pytest.CaptureFixture[str]) -> None:
    formatter = ConsoleFormatter("credit-service", colours=True)
    try:
        raise ValueError("x")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("any", logging.ERROR, "f", 1, "failed", None, info)
    first, second, *_, last = formatter.format(record).splitlines()
    assert "\x1b[31mERROR" in first
    assert second == "Traceback (most recent call last):"
    assert last == "ValueError: x"
    assert capsys.readouterr().err == ""


def test_e_mail_addresses_are_hidden_on_request(
    lines: Lines, capfd: pytest.CaptureFixture[str]
) -> None:
    def log() -> None:
        logger = create_logger("any")
        with bind(Context.start(user_id="jo@shop.example")):
            logger.info(
                "mail\njo.doe+x@shop.example to %s",
                "ö@straße.example",
                to=["jo@shop.example."],
                names={"jo@shop.example": 1},
                url="postgresql://me:hunter2@db.shop.example/x",
                handle="@shop",
                at="3 @ 4.50",
            )
        try:
            raise ValueError("no mailbox jo@shop.example")
        except ValueError:
            logger.exception("refused")

    log()
    assert lines()[0]["to"] == ["jo@shop.example."]
    for format_ in ("json", "console"):
        settings = LoggingSettings(format=format_, redact_emails=True)
        configure_logging(settings, service="credit-service", environment="prod")
        log()
        text = capfd.readouterr().out
        for address in ("jo.doe", "jo@", "ö@", "straße"):
            assert address not in text
        for kept in ("mail\\n**********", "@db.shop.example/x", "@shop", "3 @ 4.50", "no mailbox"):
            assert kept in text


def test_hiding_e_mail_addresses_takes_time_in_proportion() -> None:
    """The quadratic search this guards against would take hours."""
    long = "a." * 500_000
    record = logging.LogRecord("any", logging.INFO, "f", 1, f"{long}@ @{long}", None, None)
    formatter = JsonFormatter("credit-service", redact_emails=True)
    assert len(formatter.format(record)) > 1_000_000


_PIECES = st.sampled_from(
    [
        "lamp",
        " ",
        "é",
        '"',
        "'",
        "\\",
        "=",
        "&",
        "@",
        "://",
        "nats",
        "user:",
        "pw",
        "host.example",
        "Bearer ",
        "BEARER ",
        "bearer ",
        "Basic ",
        "abcdef12",
        "dXNlcjpwdw==",
        "password",
        "token",
        "api-key",
        "eyJhbGciOi.eyJzdWIiOiI.c2ln",
        "shpat_0123456789",
        "sk_live_0123456789",
        "whsec_",
    ]
)
_TEXT = st.lists(_PIECES, max_size=6).map("".join)
_VALUE = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), _TEXT, st.decimals(), st.uuids()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(_TEXT, st.integers(), st.just("password")), inner, max_size=3),
    ),
    max_leaves=8,
)
_NAME = st.one_of(_TEXT, st.sampled_from(["password", "timestamp", "message", "user_id", "amount"]))


@given(_TEXT, st.dictionaries(_NAME, _VALUE, max_size=4), st.booleans())
def test_a_plain_line_is_written_as_any_other_would_be(
    message: str, fields: dict[str, object], redact_emails: bool
) -> None:
    record = DirectRecord("any", logging.INFO, message, (), fields)
    formatter = JsonFormatter("shop", environment="prod", redact_emails=redact_emails)
    with bind(CONTEXT):
        written = formatter.line(record)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("shared.logging.formatters.text_of_plain", lambda _: None)
            assert formatter.line(record) == written


def test_fields_without_secrets_are_written_without_going_through_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(_: object) -> None:
        raise AssertionError("the long way")

    monkeypatch.setattr("shared.logging.formatters.loggable_fields", never)
    fields = {
        "order_id": 7,
        "route": "/orders/{order_id}",
        "attributes": {"status": 200, "of": 0.5},
    }
    record = DirectRecord("any", logging.INFO, "order %s", ("A-1",), fields)
    line = json.loads(JsonFormatter("shop").line(record))
    assert line["message"] == "order A-1"
    assert {name: line[name] for name in fields} == fields
