"""How messages are read and written: in our envelope, or as plain JSON of somebody else's.

A contract names its codec. One of your own is an object with the members of `Codec`:

    class Avro:
        content_type = "application/avro"
        enveloped = False

        def decode(self, contract, message, *, envelope=False): ...
        def encode(self, envelope): ...
        def fields(self, body): ...

    ORDERS = Contract("orders.*.created", Order, stream="ORDERS", codec=Avro())
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol

import pydantic
from pydantic import BaseModel, Field
from pydantic_core import from_json, to_json

from shared.context import safe_id
from shared.events import headers as header
from shared.events.envelope import Envelope, EnvelopeError, P, Spoken, may_not_be_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Received(Protocol):
    """What a codec needs of a message; `shared.messaging.Delivery` has it."""

    @property
    def subject(self) -> str:
        """The subject it was published on."""

    @property
    def body(self) -> bytes:
        """Its body, collected from the object store if it was left there."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""

    @property
    def stream(self) -> str:
        """The stream it is in."""

    @property
    def sequence(self) -> int:
        """Its number in the stream."""


class Readable(Spoken[P], Protocol[P]):
    """What a codec needs of a contract; `shared.events.Contract` has it."""

    def read(self, envelope: Envelope) -> P:
        """Return the payload of an envelope as its type, through older versions if need be."""


@dataclass(slots=True)
class Decoded(Generic[P]):
    """What a message says, its payload perhaps not yet read.

    Attributes:
        event_id: by which an inbox knows it again.
        sent: whose work it is, for `shared.events.context_from_message`.
        payload: reads the payload, at most once; raises `pydantic.ValidationError` when it does
            not fit the contract, and `UpcastError` when it is of a version without a way from it.
        envelope: the envelope it came in; None where there is none, or it was not asked for.
    """

    event_id: str
    sent: header.Sent
    payload: Callable[[], P]
    envelope: Envelope | None = None


class Codec(Protocol):
    """Reads and writes the messages of contracts. It keeps nothing from one message to the next.

    Attributes:
        content_type: of the body, as told in `Content-Type` and in AsyncAPI.
        enveloped: whether messages are envelopes, which handlers may ask for.
    """

    content_type: str
    enveloped: bool

    def decode(
        self, contract: Readable[P], message: Received, *, envelope: bool = False
    ) -> Decoded[P]:
        """Read a message as far as is possible without its payload's errors.

        Args:
            contract: theirs.
            message: one message.
            envelope: whether the envelope is asked for.

        Raises:
            EnvelopeError: it is not in this form at all. It goes to the dead letters.
        """

    def encode(self, envelope: Envelope) -> bytes:
        """Return the body of the message that says what the envelope says."""

    def fields(self, body: bytes) -> Any:
        """Return the payload as plain values, to look up a field; `ValueError` if it has none."""


class _EnvelopeCodec:
    """The envelope as JSON, and CloudEvents in either mode.

    A message in the envelope's own form and the contract's own version whose last field is the
    payload, which is nearly every one, is read in one pass from JSON to the payload's type. Any
    other, and what does not fit, takes the way over `Envelope` and `Contract.read`, to whose
    outcome and errors the short way leads as well.
    """

    content_type: str = "application/json"
    enveloped: bool = True

    def decode(
        self, contract: Readable[P], message: Received, *, envelope: bool = False
    ) -> Decoded[P]:
        """See `Codec.decode`."""
        if not envelope and (short := _in_one_pass(contract, message)):
            return short
        whole = Envelope.from_message(message.body, message.headers)
        return Decoded(whole.event_id, whole, partial(contract.read, whole), whole)

    def encode(self, envelope: Envelope) -> bytes:
        """See `Codec.encode`."""
        return envelope.encode()

    def fields(self, body: bytes) -> Any:
        """See `Codec.fields`."""
        document = from_json(body)
        if not isinstance(document, dict) or "payload" not in document:
            raise ValueError("the body is not an envelope")
        return document["payload"]

    def __repr__(self) -> str:
        return "ENVELOPE"


class _JsonCodec:
    """The payload alone as JSON; what an envelope would say is in the headers.

    The event id is the header `Nats-Msg-Id`, else the stream's name and the message's number in it.
    Trace, correlation and tenant are taken from the headers, a `merchant_id` from the payload. The
    version is that of the header `Glam-Schema-Version`, else the contract's own.
    """

    content_type: str = "application/json"
    enveloped: bool = False

    def decode(
        self, contract: Readable[P], message: Received, *, envelope: bool = False
    ) -> Decoded[P]:
        """See `Codec.decode`."""
        del envelope  # there is none
        headers, body = message.headers, message.body
        event_id = header.value_of(headers, header.MESSAGE_ID)
        version = header.version_of(headers)
        read: Callable[[], P]
        if version is None or version == str(contract.version):
            read = partial(contract.payload.model_validate_json, body)
        else:
            read = partial(_of_another_version, contract, message, version)
        return Decoded(
            event_id or f"{message.stream}:{message.sequence}", _Sent(None, None, body), read
        )

    def encode(self, envelope: Envelope) -> bytes:
        """See `Codec.encode`."""
        written = envelope.payload_as_it_came()
        return to_json(envelope.payload) if written is None else written

    def fields(self, body: bytes) -> Any:
        """See `Codec.fields`."""
        return from_json(body)

    def __repr__(self) -> str:
        return "JSON"


ENVELOPE: Final[Codec] = _EnvelopeCodec()
"""Our own envelope, or a CloudEvent: what every contract speaks unless it names another codec."""

JSON: Final[Codec] = _JsonCodec()
"""Plain JSON, the body being the payload: for subjects and formats of others."""


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
    def tenant_id(self) -> str | None:
        """The tenant that the payload itself names, as its `merchant_id`, if it does."""
        try:
            document = from_json(self.encoded_payload)
        except ValueError:
            return None
        merchant = document.get("merchant_id") if isinstance(document, dict) else None
        return safe_id(merchant) if isinstance(merchant, str) else None


def _in_one_pass(contract: Readable[P], message: Received) -> Decoded[P] | None:
    body = message.body
    # A CloudEvent in binary mode may carry anything; and what is not valid JSON is refused later.
    if "ce-specversion" in message.headers or may_not_be_json(body):
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
    # A payload that is not an object is not an envelope's, whatever its type may read.
    if not encoded_payload.lstrip().startswith(b"{"):
        return None
    sent = _Sent(about.trace_id, about.correlation_id, encoded_payload)
    return Decoded(about.event_id, sent, lambda: payload)


def _of_another_version(contract: Readable[P], message: Received, version: str) -> P:
    try:
        payload = from_json(message.body, allow_inf_nan=False)
    except ValueError as error:
        raise EnvelopeError(f"the body of the message is not valid JSON: {error}") from error
    return contract.read(
        Envelope.from_dict(
            {
                "event_id": f"{message.stream}:{message.sequence}",
                "subject": message.subject,
                "timestamp": None,
                "metadata": {"version": version},
                "payload": payload,
            }
        )
    )
