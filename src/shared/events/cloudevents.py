"""Envelopes as CloudEvents 1.0 (CNCF), over NATS in structured and in binary mode.

The JSON event format 1.0.2, and the NATS protocol binding 1.0.3 (draft): a content type of
``application/cloudevents...`` means structured; in binary mode every attribute, the data's content
type among them, is a header with ``ce-`` before its name, percent-encoded as for HTTP.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from pydantic_core import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

STRUCTURED = "application/cloudevents+json"

_MODE = "application/cloudevents"
_JSON = "application/json"
_PREFIX = "ce-"
_REQUIRED = ("specversion", "id", "source", "type")
_ATTRIBUTE = re.compile(r"[a-z0-9]+")

# Printable ASCII stands for itself, but for what the binding names: space, quote and percent.
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')

# Attributes of our own; names are lower case and digits (CloudEvents 1.0.2, "Naming conventions").
_OURS = {
    "trace_id": "glamtraceid",
    "correlation_id": "correlationid",
    "idempotency_key": "idempotencykey",
}
_METADATA = "glammetadata"
_EXTRA = "glamextra"


def attributes_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes of an envelope, given as plain JSON."""
    known = {"event_id", "subject", "timestamp", "metadata", "payload", *_OURS}
    extra = {name: value for name, value in document.items() if name not in known}
    metadata = document["metadata"]
    attributes = {
        "specversion": "1.0",
        "id": document["event_id"],
        "source": quote(str(metadata.get("source_service") or "unknown")),
        "type": document["subject"],
        "time": document["timestamp"],
        "datacontenttype": _JSON,
        **{theirs: document[ours] for ours, theirs in _OURS.items() if document[ours]},
        _METADATA: to_json(metadata).decode(),
    }
    if extra:
        attributes[_EXTRA] = to_json(extra).decode()
    return attributes


def headers_of(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a message in binary mode."""
    return {f"{_PREFIX}{name}": quote(value, safe=_PLAIN) for name, value in attributes.items()}


def document_of(body: bytes, headers: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the envelope's document of a CloudEvent in either mode; None if it is none.

    Attributes that are not an envelope's are kept as unknown fields.

    Raises:
        ValueError: it is a CloudEvent, and not a good one; says what is wrong.
    """
    sent = {name.lower(): value for name, value in headers.items()}
    if sent.get("content-type", "").startswith(_MODE):
        event = from_json(body)
        if not isinstance(event, dict):
            raise ValueError("a CloudEvent is a JSON object")
        data = event.pop("data", None)
        if "data_base64" in event:
            raise ValueError("the CloudEvent's data is binary, and a payload is a JSON object")
        attributes = event
    elif f"{_PREFIX}specversion" in sent:
        attributes = {
            name.removeprefix(_PREFIX): unquote(value)
            for name, value in sent.items()
            if name.startswith(_PREFIX)
        }
        data = from_json(body)
    else:
        return None
    if missing := [name for name in _REQUIRED if not attributes.get(name)]:
        raise ValueError(f"the CloudEvent lacks {', '.join(missing)}")
    if attributes["specversion"] != "1.0":
        raise ValueError(f"the CloudEvent is of version {attributes['specversion']}, not 1.0")
    return _document(attributes, data)


def _document(attributes: dict[str, Any], data: object) -> dict[str, Any]:
    content_type = attributes.pop("datacontenttype", _JSON)
    if "json" not in content_type:
        raise ValueError(f"the CloudEvent's data is {content_type}, and a payload is JSON")
    del attributes["specversion"]
    metadata = _object(attributes.pop(_METADATA, None), _METADATA)
    extra = _object(attributes.pop(_EXTRA, None), _EXTRA)
    return {
        "event_id": attributes.pop("id"),
        "subject": attributes.pop("type"),
        "timestamp": attributes.pop("time", None),
        "metadata": {"source_service": unquote(attributes.pop("source")), **metadata},
        "payload": data,
        **{ours: attributes.pop(theirs, None) for ours, theirs in _OURS.items()},
        **{name: value for name, value in attributes.items() if _ATTRIBUTE.fullmatch(name)},
        **extra,
    }


def _object(text: str | None, name: str) -> dict[str, Any]:
    value = {} if text is None else from_json(text)
    if isinstance(value, dict):
        return value
    raise ValueError(f"the CloudEvent's {name} is not a JSON object")
