"""Finished spans on their way to a collector, by OTLP over HTTP. Needs ``glam-shared[otel]``.

OpenTelemetry's SDK batches and sends them in a thread of its own; it has no part in making them,
and no tracer provider is set. https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from pydantic_core import to_json

from shared.config.redaction import redact_text
from shared.logging.values import loggable
from shared.tracing.conventions import (
    SCHEMA_URL,
    attributes_of,
    name_of,
    resource_of,
    says_enough,
)
from shared.tracing.span import export_to, exporter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.util.types import AttributeValue

    from shared.config import TracingSettings
    from shared.context import TraceContext
    from shared.tracing.span import FinishedSpan


_logger = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_INTEGERS = range(-(2**63), 2**63)  # OTLP's int_value
_PATH = "/v1/traces"
_KINDS = {kind.name.lower(): kind for kind in SpanKind}
_REMOTE_PARENT = frozenset({"server", "consumer"})


class OtlpExporter:
    """Exports finished spans, see `shared.tracing.span.SpanExporter`.

    A collector that does not answer costs its spans and two lines in the log, one when it goes and
    one when it is back: the queue is bounded (`OTEL_BSP_MAX_QUEUE_SIZE`, 2048), the oldest go
    first. The SDK's other variables, such as `OTEL_EXPORTER_OTLP_CERTIFICATE`,
    `OTEL_EXPORTER_OTLP_COMPRESSION` or `OTEL_RESOURCE_ATTRIBUTES`, mean what they always mean.

    Args:
        settings: how to export.
        endpoint: the collector's address; ``/v1/traces`` is added unless it is there.
        service: the resource's `service.name`.
        version: the resource's `service.version`.
        environment: the resource's `deployment.environment.name`.
    """

    def __init__(
        self,
        settings: TracingSettings,
        *,
        endpoint: str,
        service: str,
        version: str,
        environment: str,
    ) -> None:
        self._flush_seconds = settings.flush_seconds
        self._resource = Resource.create(resource_of(service, version, environment), SCHEMA_URL)
        self._scope = InstrumentationScope(
            "glam-shared", metadata.version("glam-shared"), SCHEMA_URL
        )
        self._collector = _Collector(settings, endpoint)
        self._processor = BatchSpanProcessor(self._collector)
        self._closed = False

    def export(self, span: FinishedSpan) -> None:
        """Put a span into the queue; the oldest goes if that is full."""
        try:
            readable = self._readable(span)
            with _quiet() as said:
                self._processor.on_end(readable)
            if said:  # the queue is full, and the oldest went
                self._collector.lose(1, said)
        except Exception:
            _logger.exception("span %s cannot be exported", span.name)

    async def close(self) -> None:
        """Take no more spans, and send those that wait. A second call does nothing.

        After `flush_seconds` what could not be sent is given up. The event loop goes on meanwhile.
        """
        if self._closed:
            return
        self._closed = True
        if exporter() is self:
            export_to(None)
        loop = asyncio.get_running_loop()
        flushed = asyncio.Event()

        def flush() -> None:
            with _quiet():
                self._processor.shutdown()  # type: ignore[no-untyped-call]
            with suppress(RuntimeError):  # the loop did not wait so long
                loop.call_soon_threadsafe(flushed.set)

        # Not the loop's executor: the interpreter waits for that one's threads before it ends.
        threading.Thread(target=flush, name="span flush", daemon=True).start()
        try:
            async with asyncio.timeout(self._flush_seconds):
                await flushed.wait()
        except TimeoutError:
            _logger.warning(
                "spans are given up: the collector did not take them within %s s",
                self._flush_seconds,
            )
        finally:
            self._collector.shutdown()

    def _readable(self, span: FinishedSpan) -> ReadableSpan:
        start = (span.started - _EPOCH) // _MICROSECOND * 1000
        parent = None
        if span.parent_span_id is not None:
            remote = span.kind in _REMOTE_PARENT
            parent = _span_context(span.context, span.parent_span_id, remote=remote)
        return ReadableSpan(
            name=_text(name_of(span)),
            context=_span_context(span.context, span.context.span_id, remote=False),
            parent=parent,
            resource=self._resource,
            attributes={
                name: _value(name, value)
                for name, value in attributes_of(span).items()
                if value is not None
            },
            kind=_KINDS[span.kind],
            status=_status(span.error),
            start_time=start,
            end_time=start + max(0, round(span.duration_seconds * 1e9)),
            instrumentation_scope=self._scope,
        )


class _Collector(SpanExporter):
    """The collector: says once that it is gone, and once that it is back."""

    def __init__(self, settings: TracingSettings, endpoint: str) -> None:
        path = "" if endpoint.rstrip("/").endswith(_PATH) else _PATH
        self._endpoint = endpoint.rstrip("/") + path
        self._exporter = OTLPSpanExporter(
            self._endpoint,
            headers={name: value.get_secret_value() for name, value in settings.headers.items()},
            timeout=settings.timeout_seconds,
        )
        self._lock = threading.Lock()
        self._lost = 0
        self._open = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, in the thread of the batches."""
        if not self._open:
            return SpanExportResult.FAILURE
        with _quiet() as said:
            result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self.lose(len(spans), said)
            return result
        with self._lock:
            lost, self._lost = self._lost, 0
        if lost:
            _logger.info("spans are exported again", extra=self._about(lost=lost))
        return result

    def lose(self, count: int, said: Sequence[str]) -> None:
        """Count spans that did not get through, and tell of the first since one did."""
        with self._lock:
            first = self._lost == 0
            self._lost += count
        if first and self._open:
            reason = redact_text(said[0]) if said else "unknown"
            _logger.warning("spans cannot be exported", extra=self._about(reason=reason))

    def shutdown(self) -> None:
        """Send nothing more; a request that waits for its next attempt is given up."""
        if self._open:
            self._open = False
            self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _about(self, **fields: object) -> dict[str, object]:
        return {"endpoint": redact_text(self._endpoint), **fields}


def _span_context(trace: TraceContext, span_id: str, *, remote: bool) -> SpanContext:
    state = TraceState.from_header([trace.tracestate]) if trace.tracestate else None
    flags = TraceFlags(trace.flags)
    return SpanContext(int(trace.trace_id, 16), int(span_id, 16), remote, flags, state)


def _status(error: str | None) -> Status:
    if error is None:
        return Status()
    return Status(StatusCode.ERROR, None if says_enough(error) else _text(redact_text(error)))


def _value(name: str, value: object) -> AttributeValue:
    """Give an attribute the shape OpenTelemetry has for it, redacted as the log's are."""
    match loggable(name, value):
        case bool() | float() as plain:
            return plain
        case int() as number if number in _INTEGERS:
            return number
        case str() as text:
            return _text(text)
        case other:
            return to_json(other).decode()


def _text(text: str) -> str:
    """Keep what UTF-8 can carry."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


# -- the SDK's own words ---------------------------------------------------------------------------
# It logs every attempt and every span that finds the queue full. In our threads that is kept out of
# the log, and the reason logged once; what other users of the SDK have to say is not touched.

_local = threading.local()


def _overheard(record: logging.LogRecord) -> bool:
    said: list[str] | None = getattr(_local, "said", None)
    if said is None:
        return True
    said.append(record.getMessage())
    return False


@contextmanager
def _quiet() -> Iterator[list[str]]:
    before = getattr(_local, "said", None)
    said: list[str] = []
    _local.said = said
    try:
        yield said
    finally:
        _local.said = before


for _name in (
    "opentelemetry.attributes",
    "opentelemetry.exporter.otlp.proto.common._internal",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.trace.span",
):
    logging.getLogger(_name).filters.insert(0, _overheard)  # before the SDK's own, which drops some
