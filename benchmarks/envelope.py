"""Writing and reading the envelope of an order with three lines.

All writers use the same ids and clock, inside one context. What makes the comparison unfair:

- `json` checks nothing. It is given a payload that is plain JSON already, and hands back what it
  read, timestamp as text.
- `orjson` checks nothing either; `msgspec` checks the envelope's types, but drops unknown fields.
- Bare pydantic checks the payload as its type while reading, in one pass, and trusts it while
  writing. Our writer reads its own payload back, so that nothing unreadable is sent; our reader
  keeps the fields it does not know, and hands the payload out as JSON before a contract reads it.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import orjson
from pydantic import BaseModel

from benchmarks.harness import Bench, Run
from shared.context import Context, bind, current, new_event_id
from shared.events import Envelope
from shared.events.credit import ORDER_UPDATED, OrderLine, OrderUpdatedPayload

_OPERATIONS = 5_000

_ORDER = OrderUpdatedPayload(
    merchant_id=UUID("0190a5f0-7c4e-7b5a-9d43-2f1f6d0f2a11"),
    merchant_domain="ada.example.com",
    order_id="5123456789",
    order_name="#1042",
    currency="EUR",
    updated_at=datetime(2025, 5, 4, 12, 30, tzinfo=UTC),
    lines=[
        OrderLine(line_id=f"{n}", title=f"Lamp {n}", sku=f"LAMP-{n}", quantity=n, price=Decimal(9))
        for n in (1, 2, 3)
    ],
)
_PLAIN_ORDER = _ORDER.model_dump(mode="json")
_METADATA = {"source_service": "webhook-service", "version": "1"}


class _Bare(BaseModel):
    event_id: str
    trace_id: str | None
    subject: str
    correlation_id: str | None
    idempotency_key: str | None
    timestamp: datetime
    metadata: dict[str, Any]


class _Struct(msgspec.Struct):
    event_id: str
    subject: str
    timestamp: datetime
    payload: dict[str, Any]
    trace_id: str | None = None
    correlation_id: str | None = None
    idempotency_key: str | None = None
    metadata: dict[str, Any] = {}


_TYPED = msgspec.json.Decoder(_Struct)


class _BareWithOrder(_Bare):
    payload: OrderUpdatedPayload


class _BareWithJson(_Bare):
    payload: dict[str, Any]


async def envelope(bench: Bench) -> None:
    """Compare writing, reading, and reading with the payload as its type."""
    body = _write_ours()
    with bind(Context.start(service="webhook-service")):
        await bench.compare(
            "envelope: create and encode",
            _OPERATIONS,
            {
                "shared: Envelope.create, encode": _times(_write_ours),
                "stdlib json": _times(_write_json),
                "bare pydantic": _times(_write_bare),
            },
        )
        made = Envelope.create(ORDER_UPDATED, _ORDER, source_service="webhook-service")
        received, plain, typed = Envelope.decode(body), json.loads(body), _TYPED.decode(body)
        await bench.compare(
            "envelope: encode",
            _OPERATIONS,
            {
                "shared: encode what create made": _times(made.encode),
                "shared: encode what decode read": _times(received.encode),
                "stdlib json": _times(lambda: json.dumps(plain).encode()),
                "orjson": _times(lambda: orjson.dumps(plain)),
                "msgspec, typed": _times(lambda: msgspec.json.encode(typed)),
            },
        )
        await bench.compare(
            "envelope: decode",
            _OPERATIONS,
            {
                "shared: Envelope.decode": _times(lambda: Envelope.decode(body)),
                "stdlib json": _times(lambda: json.loads(body)),
                "orjson": _times(lambda: orjson.loads(body)),
                "msgspec, typed": _times(lambda: _TYPED.decode(body)),
                "bare pydantic": _times(lambda: _BareWithJson.model_validate_json(body)),
            },
        )
        await bench.compare(
            "envelope: decode, and read the payload as its type",
            _OPERATIONS,
            {
                "shared: Envelope.decode, Contract.read": _times(
                    lambda: ORDER_UPDATED.read(Envelope.decode(body))
                ),
                "bare pydantic": _times(lambda: _BareWithOrder.model_validate_json(body)),
            },
        )


def _times(operation: Callable[[], object]) -> Run:
    async def run(operations: int) -> None:
        for _ in range(operations):
            operation()

    return run


def _write_ours() -> bytes:
    return Envelope.create(ORDER_UPDATED, _ORDER, source_service="webhook-service").encode()


def _write_json() -> bytes:
    document = {**_ids(), "timestamp": datetime.now(UTC).isoformat(), "payload": _PLAIN_ORDER}
    return json.dumps(document).encode()


def _write_bare() -> bytes:
    bare = _BareWithOrder(**_ids(), timestamp=datetime.now(UTC), payload=_ORDER)
    return bare.model_dump_json().encode()


def _ids() -> dict[str, Any]:
    context = current()
    return {
        "event_id": new_event_id(),
        "trace_id": context.trace.trace_id if context else None,
        "subject": ORDER_UPDATED.subject,
        "correlation_id": context.correlation_id if context else None,
        "idempotency_key": None,
        "metadata": _METADATA,
    }
