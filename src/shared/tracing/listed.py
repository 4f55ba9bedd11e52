"""Spans that ended together, such as those of a batch of messages, several in one line of the log.

A line costs more than what it says of one span. `glam trace` reads them out of it as if each had
its own.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from shared.config.redaction import may_hold_secret
from shared.logging.record import log_directly
from shared.logging.values import Loggable, loggable_fields
from shared.tracing.span import FinishedSpan, exporter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_logger = logging.getLogger("shared.tracing")

# Some 12 kB: container runtimes cut a line at 16 KiB, and half of one is not JSON.
_SPANS_A_LINE = 32


class ListedSpan(NamedTuple):
    """A finished span, and the ids of the work it belongs to: its line has none of its own.

    Its attributes are text and whole numbers.
    """

    span: FinishedSpan
    ids: Mapping[str, str]


def write_list(spans: Sequence[ListedSpan]) -> None:
    """Record finished spans, as `record_span` each: exported one by one, listed in the log.

    A record's field `spans` has what otherwise are fields of the record, for each span.
    """
    taker = exporter()
    if taker is not None:
        for span, _ in spans:
            if span.context.sampled:
                taker.export(span)
    if not _logger.isEnabledFor(logging.INFO):
        return
    for start in range(0, len(spans), _SPANS_A_LINE):
        part = spans[start : start + _SPANS_A_LINE]
        words = part[0].span.name, len(part) - 1
        fields: dict[str, object] = {"spans": Loggable(_fields(*listed) for listed in part)}
        if not log_directly(_logger, logging.INFO, "span %s and %d more", words, fields):
            _logger.info("span %s and %d more", *words, extra=fields)


def _fields(span: FinishedSpan, ids: Mapping[str, str]) -> dict[str, object]:
    fields: dict[str, object] = {
        "span": span.name,
        "kind": span.kind,
        "trace_id": span.context.trace_id,
        "span_id": span.context.span_id,
        "parent_span_id": span.parent_span_id,
        "started": span.started.isoformat(),
        "duration_ms": round(span.duration_seconds * 1000, 3),
        "attributes": span.attributes,
        **ids,
    }
    if span.error is not None:
        fields["error"] = span.error
    # One look at all that came from elsewhere, rather than one at each, saves 2 of 12 us.
    texts = [span.name, span.error or "", *ids.values()]
    texts += [value for value in span.attributes.values() if type(value) is str]
    return loggable_fields(fields) if may_hold_secret("\n".join(texts)) else fields
