"""A message as its handler needs it, read in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, cast

import pydantic
from pydantic import BaseModel, Field
from pydantic_core import from_json

from shared.context import safe_id
from shared.events import Contract, Envelope, context_from_message
from shared.events.contract import P
from shared.events.envelope import may_be_no_json

if TYPE_CHECKING:
    from shared.context import Context
    from shared.messaging import Delivery

__all__ = ["Incoming", "Reader"]


@dataclass(slots=True)
class Incoming(Generic[P]):
    """What a message says: its id, whose work it is, and its payload if that is read already."""

    event_id: str
    context: Context
    envelope: Envelope | None
    payload: P | None


class _About(BaseModel):
    """What stands before the payload in an envelope, as `Envelope` asks for it."""

    event_id: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    timestamp: datetime | None
    trace_id: str | None = None
    correlation_id: str | None = None
    idempotency_key: str | None = None
    metadata: dict[str, Any] | None = None
    payload: None = None  # should there be two, the last one counts


@dataclass(slots=True)
class _Plain(Generic[P]):
    """An envelope in two parts, each of them read in one pass."""

    event_id: str
    trace_id: str | None
    correlation_id: str | None
    payload: P
    encoded_payload: bytes

    @property
    def merchant_id(self) -> str | None:
        """The merchant that the payload itself names, if it does."""
        document = from_json(self.encoded_payload)
        merchant = document.get("merchant_id") if isinstance(document, dict) else None
        return safe_id(merchant) if isinstance(merchant, str) else None


class Reader(Generic[P]):
    """Reads the messages of one contract for one service.

    A message in the envelope's own form and the contract's own version whose last field is the
    payload, which is nearly every one, is read in one pass from JSON to the payload's type. Any
    other, and what does not fit, takes the way over `Envelope` and `Contract.read`, to whose
    outcome and errors the short way leads as well.

    Args:
        contract: theirs.
        service: who handles them.
        envelope: whether the handler asks for the envelope.
    """

    def __init__(self, contract: Contract[P], *, service: str, envelope: bool) -> None:
        self._contract = contract
        self._service = service
        self._envelope = envelope
        self._payload = contract.payload.__pydantic_validator__

    def read(self, delivery: Delivery) -> Incoming[P]:
        """Read one message, as far as it is read without an error of its payload.

        Raises:
            EnvelopeError: the body is no envelope.
        """
        if plain := self._plainly(delivery):
            context = context_from_message(plain, delivery.headers, self._service)
            return Incoming(plain.event_id, context, None, plain.payload)
        envelope = Envelope.from_message(delivery.body, delivery.headers)
        context = context_from_message(envelope, delivery.headers, self._service)
        return Incoming(envelope.event_id, context, envelope, None)

    def payload(self, incoming: Incoming[P]) -> P:
        """Return the payload of a message that was read.

        Raises:
            pydantic.ValidationError: it does not fit the contract.
            UpcastError: it is of a version from which there is no way.
        """
        if incoming.payload is None and incoming.envelope is not None:
            incoming.payload = self._contract.read(incoming.envelope)
        return cast("P", incoming.payload)

    def _plainly(self, delivery: Delivery) -> _Plain[P] | None:
        body = delivery.body
        # A CloudEvent in binary mode may carry anything; and what is no JSON is refused there.
        if self._envelope or "ce-specversion" in delivery.headers or may_be_no_json(body):
            return None
        # If both parts are JSON, the cut is between two fields of the envelope.
        head, found, tail = body.partition(b',"payload":')
        if not found or not tail.endswith(b"}"):
            return None
        encoded_payload = tail[:-1]
        try:
            about = _about.validate_json(head + b"}")
            payload: P = self._payload.validate_json(encoded_payload)
        except pydantic.ValidationError:
            return None
        if str((about.metadata or {}).get("version")) != str(self._contract.version):
            return None
        # Of a payload that is no object nothing is an envelope, whatever its type may read.
        if not encoded_payload.lstrip().startswith(b"{"):
            return None
        return _Plain(
            about.event_id, about.trace_id, about.correlation_id, payload, encoded_payload
        )


_about = _About.__pydantic_validator__
