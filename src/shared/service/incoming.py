"""A message as its handler needs it, read in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

import pydantic
from pydantic import BaseModel, Field
from pydantic_core import from_json

from shared.context import safe_id
from shared.events import Contract, Envelope
from shared.events.contract import P
from shared.events.envelope import may_be_no_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.events.headers import Sent
    from shared.messaging import Delivery

__all__ = ["Decoded", "decode"]


@dataclass(slots=True)
class Decoded(Generic[P]):
    """What a message says, its payload perhaps not yet read.

    Attributes:
        event_id: by which an inbox knows it again.
        sent: whose work it is, for `context_from_message`.
        payload: reads the payload; raises `pydantic.ValidationError` when it does not fit the
            contract, and `UpcastError` when it is of a version from which there is no way.
        envelope: the envelope it came in, if it was asked for or had to be read.
    """

    event_id: str
    sent: Sent
    payload: Callable[[], P]
    envelope: Envelope | None = None


def decode(contract: Contract[P], delivery: Delivery, *, envelope: bool) -> Decoded[P]:
    """Read one message of a contract, as far as it is read without an error of its payload.

    A message in the envelope's own form and the contract's own version whose last field is the
    payload, which is nearly every one, is read in one pass from JSON to the payload's type. Any
    other, and what does not fit, takes the way over `Envelope` and `Contract.read`, to whose
    outcome and errors the short way leads as well.

    Args:
        contract: of the message.
        delivery: the message.
        envelope: whether the envelope is asked for.

    Raises:
        EnvelopeError: the body is not an envelope.
    """
    if not envelope and (short := _in_one_pass(contract, delivery)) is not None:
        return short
    whole = Envelope.from_message(delivery.body, delivery.headers)
    return Decoded(whole.event_id, whole, partial(contract.read, whole), whole)


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


_about = _About.__pydantic_validator__


@dataclass(slots=True)
class _Sent:
    """Whose work a message is; the tenant is looked up when it is asked for."""

    trace_id: str | None
    correlation_id: str | None
    encoded_payload: bytes

    @property
    def merchant_id(self) -> str | None:
        """The merchant that the payload itself names, if it does."""
        document = from_json(self.encoded_payload)
        merchant = document.get("merchant_id") if isinstance(document, dict) else None
        return safe_id(merchant) if isinstance(merchant, str) else None


def _in_one_pass(contract: Contract[P], delivery: Delivery) -> Decoded[P] | None:
    body = delivery.body
    # A CloudEvent in binary mode may carry anything; and what is not JSON is refused later.
    if "ce-specversion" in delivery.headers or may_be_no_json(body):
        return None
    # If both parts are JSON, the cut is between two fields of the envelope.
    head, found, tail = body.partition(b',"payload":')
    if not found or not tail.endswith(b"}"):
        return None
    encoded_payload = tail[:-1]
    try:
        about = _about.validate_json(head + b"}")
        payload: P = contract.payload.__pydantic_validator__.validate_json(encoded_payload)
    except pydantic.ValidationError:
        return None
    if str((about.metadata or {}).get("version")) != str(contract.version):
        return None
    # Of a payload that is no object nothing is an envelope, whatever its type may read.
    if not encoded_payload.lstrip().startswith(b"{"):
        return None
    sent = _Sent(about.trace_id, about.correlation_id, encoded_payload)
    return Decoded(about.event_id, sent, lambda: payload)
