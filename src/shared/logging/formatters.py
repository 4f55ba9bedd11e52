"""A record as a line of JSON, or as a line for a person."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic_core import to_json

from shared.config.redaction import may_hold_secret, redact_text
from shared.context import current
from shared.logging.record import FIELDS, DirectRecord
from shared.logging.request_context import request_context
from shared.logging.values import loggable, loggable_fields, text_of_plain, without_emails

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {
    FIELDS,
    "asctime",
    "color_message",  # uvicorn: the message once more, with colours
    "message",
    "taskName",
}
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_DIM, _RESET = "\x1b[2m", "\x1b[0m"
_QUIET = frozenset({"parent_span_id", "span", "span_id", "spans", "started"})
"""Fields that draw a trace and only fill a person's line."""

_ALWAYS = frozenset({"timestamp", "service", "level", "message", "environment"})


class JsonFormatter(logging.Formatter):
    """One JSON object per record.

    First `timestamp` (UTC), `service`, `level`, `message`, `environment`, then the ids of the
    current context, then `logger`, the fields of the task and of the call, and `exception`.
    A field named like one of the first five is kept with `field_` before its name. Formatting never
    raises: what cannot be written is described. Secrets are hidden always, e-mail addresses on
    request.
    """

    def __init__(
        self, service_name: str, *, environment: str | None = None, redact_emails: bool = False
    ) -> None:
        super().__init__()
        self._service = service_name
        self._environment = environment
        self._redact_emails = redact_emails

    def format(self, record: logging.LogRecord) -> str:
        """Write the record as one line, without a line break at the end."""
        return self.line(record)[:-1].decode()

    def line(self, record: logging.LogRecord) -> bytes:
        """Write the record as one line of UTF-8, with its line break."""
        text = _text(record)
        fields = fields_of(record)
        told = record.exc_info or record.exc_text or record.stack_info
        plain = None if told else text_of_plain(fields)
        if plain is not None and not may_hold_secret(f"{text}\n{plain}"):
            written = _json(self._line(record, text, fields))
            if not (self._redact_emails and b"@" in written):
                return written + b"\n"
        line = self._line(record, redact_text(text), loggable_fields(fields))
        if told and (traceback := exception(self, record)):
            line["exception"] = traceback
        written = _json(line)
        if self._redact_emails and b"@" in written:
            written = _json(without_emails(line))
        return written + b"\n"

    def _line(
        self, record: logging.LogRecord, text: str, fields: Mapping[str, object]
    ) -> dict[str, object]:
        """Put the parts of a line into their order."""
        line: dict[str, object] = {
            "timestamp": timestamp(record.created),
            "service": self._service,
            "level": record.levelname,
            "message": text,
        }
        if self._environment is not None:
            line["environment"] = self._environment
        add_ids(line)
        line["logger"] = record.name
        if _ALWAYS.isdisjoint(fields):
            line.update(fields)
        else:
            line.update((f"field_{n}" if n in _ALWAYS else n, v) for n, v in fields.items())
        return line


class ConsoleFormatter(logging.Formatter):
    """One line for a person: time, level, message, fields; an exception on the lines below it.

    Control characters are shown as escapes, so that no message can pass for two.
    """

    def __init__(
        self, service_name: str, *, colours: bool = False, redact_emails: bool = False
    ) -> None:
        super().__init__()
        self._service = service_name
        self._colours = colours
        self._redact_emails = redact_emails

    def format(self, record: logging.LogRecord) -> str:
        """Write the record as one line, and its exception below."""
        clock = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        shown: dict[str, object] = {}
        add_ids(shown)
        shown.update(loggable_fields(fields_of(record)))
        if shown.get("correlation_id") == shown.get("trace_id"):
            shown.pop("correlation_id", None)
        text, trace = message(record), exception(self, record)
        if self._redact_emails:
            text, trace, shown = without_emails((text, trace, shown))
        rest = " ".join(f"{_escaped(k)}={_word(v)}" for k, v in shown.items() if k not in _QUIET)
        head = f"{clock} {record.levelname:<8} {self._service}"
        text = _escaped(text)
        if self._colours:
            colour = _COLOURS.get(record.levelname, "")
            head = f"{_DIM}{clock}{_RESET} {colour}{record.levelname:<8}{_RESET} {self._service}"
            rest = f"{_DIM}{rest}{_RESET}" if rest else ""
        line = f"{head}  {text}" + (f"  {rest}" if rest else "")
        return f"{line}\n{trace}" if trace else line


def timestamp(moment: float) -> str:
    """Write a time since the epoch: ISO 8601, UTC, microseconds."""
    global _second  # noqa: PLW0603 - most lines fall into the same second as the one before
    whole = int(moment)
    second, text = _second
    if second != whole:
        text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second = whole, text
    return "%s.%06d+00:00" % (text, (moment - whole) * 1_000_000)  # noqa: UP031 - half the time


_second = 0, "1970-01-01T00:00:00"


def message(record: logging.LogRecord) -> str:
    """Give the record's message with its arguments in it, as far as they fit."""
    return redact_text(_text(record))


def _text(record: logging.LogRecord) -> str:
    try:
        return str(record.msg) % record.args if record.args else str(record.msg)
    except Exception:  # noqa: BLE001 - arguments that do not fit, or a __str__ that raises
        return f"{record.msg} {loggable('', record.args)}"


def add_ids(line: dict[str, object]) -> None:
    """Add the ids of the current work; outside of any there are none."""
    context = current()
    if context is None:
        return
    trace = context.trace
    line["request_id"] = context.request_id
    line["correlation_id"] = context.correlation_id
    line["trace_id"] = trace.trace_id
    line["span_id"] = trace.span_id
    if context.user_id is not None:
        line["user_id"] = context.user_id
    if context.tenant_id is not None:
        line["tenant_id"] = context.tenant_id


def fields_of(record: logging.LogRecord) -> Mapping[str, object]:
    """Give the fields: the task's, then the record's own."""
    bound = request_context.get()
    if type(record) is DirectRecord:
        return {**bound, **record.glam_fields} if bound else record.glam_fields
    own = {name: value for name, value in vars(record).items() if name not in _OWN}
    return {**bound, **own, **getattr(record, FIELDS, {})}


def exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Give the record's traceback and stack as text; empty if it has none."""
    parts = []
    if record.exc_info:
        if record.exc_info[0] is not None:
            parts.append(formatter.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return redact_text("\n".join(parts)) if parts else ""


def _json(line: dict[str, object]) -> bytes:
    try:
        return to_json(line)
    except (ValueError, UnicodeError):  # a lone surrogate, which UTF-8 cannot carry
        return json.dumps(line, default=repr).encode()


def _word(value: object) -> str:
    if isinstance(value, str):
        return _escaped(value) if value and " " not in value and "=" not in value else repr(value)
    return _escaped(str(value))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
