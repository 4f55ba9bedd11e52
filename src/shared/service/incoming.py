"""A message as its handler needs it: decoded by its contract's codec, with its context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from shared.events import context_from_message
from shared.events.envelope import P

if TYPE_CHECKING:
    from shared.context import Context
    from shared.events import Contract, Decoded, Envelope
    from shared.messaging import Delivery

__all__ = ["Incoming", "Reader"]


@dataclass(slots=True)
class Incoming(Generic[P]):
    """What a message says, and whose work it is."""

    decoded: Decoded[P]
    context: Context

    @property
    def event_id(self) -> str:
        """By which the inbox knows it again."""
        return self.decoded.event_id

    @property
    def envelope(self) -> Envelope | None:
        """The envelope it came in, if it is there."""
        return self.decoded.envelope


class Reader(Generic[P]):
    """Reads the messages of one contract for one service.

    Args:
        contract: theirs.
        service: who handles them.
        envelope: whether the handler asks for the envelope.
    """

    def __init__(self, contract: Contract[P], *, service: str, envelope: bool) -> None:
        self._contract = contract
        self._service = service
        self._envelope = envelope

    def read(self, delivery: Delivery) -> Incoming[P]:
        """Read one message, as far as it is read without an error of its payload.

        Raises:
            EnvelopeError: it is not in the form of the contract's codec.
        """
        decoded = self._contract.codec.decode(self._contract, delivery, envelope=self._envelope)
        return Incoming(
            decoded, context_from_message(decoded.sent, delivery.headers, self._service)
        )

    def payload(self, incoming: Incoming[P]) -> P:
        """Return the payload of a message that was read.

        Raises:
            pydantic.ValidationError: it does not fit the contract.
            UpcastError: it is of a version from which there is no way.
        """
        return incoming.decoded.payload()
