"""A message as its handler needs it, read in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, cast

import pydantic
from pydantic import AliasChoices, BaseModel, Field, create_model

from shared.context import safe_id
from shared.events import Contract, Envelope, context_from_message
from shared.events.contract import P

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


class _Owned(BaseModel):
    merchant_id: Any = None


class _Plain(BaseModel):
    """An envelope as `Envelope` asks for it; the contract's reader adds the payload's type."""

    event_id: str = Field(min_length=1)
    subject: str = Field(min_length=1)
    timestamp: datetime | None
    trace_id: str | None = None
    correlation_id: str | None = None
    idempotency_key: str | None = None
    metadata: dict[str, Any] | None = None
    owned: _Owned = Field(validation_alias=AliasChoices("payload"))
    payload: Any

    @property
    def merchant_id(self) -> str | None:
        """The merchant that the payload itself names, if it does."""
        merchant = self.owned.merchant_id
        return safe_id(merchant) if isinstance(merchant, str) else None


class Reader(Generic[P]):
    """Reads the messages of one contract for one service.

    A message in the envelope's own form and the contract's own version, which is nearly every one,
    is read in one pass from JSON to the payload's type. Any other, and what does not fit, takes the
    way over `Envelope` and `Contract.read`, to whose outcome and errors the short way leads as
    well.

    Args:
        contract: theirs.
        service: who handles them.
        envelope: whether the handler asks for the envelope.
    """

    def __init__(self, contract: Contract[P], *, service: str, envelope: bool) -> None:
        self._contract = contract
        self._service = service
        self._plain: type[_Plain] | None = None
        if not envelope:
            self._plain = create_model(
                f"Plain{contract.payload.__name__}",
                __base__=_Plain,
                payload=(contract.payload, ...),
            )

    def read(self, delivery: Delivery) -> Incoming[P]:
        """Read one message, as far as it is read without an error of its payload.

        Raises:
            EnvelopeError: the body is no envelope.
        """
        if plain := self._plainly(delivery):
            context = context_from_message(plain, delivery.headers, self._service)
            return Incoming(plain.event_id, context, None, cast("P", plain.payload))
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

    def _plainly(self, delivery: Delivery) -> _Plain | None:
        body = delivery.body
        # A CloudEvent in binary mode may carry anything; and what is no JSON is refused there.
        if self._plain is None or "ce-specversion" in delivery.headers or _may_be_no_json(body):
            return None
        try:
            plain = self._plain.model_validate_json(body)
        except pydantic.ValidationError:
            return None
        version = (plain.metadata or {}).get("version")
        return plain if str(version) == str(self._contract.version) else None


def _may_be_no_json(body: bytes) -> bool:
    return b"NaN" in body or b"Infinity" in body
