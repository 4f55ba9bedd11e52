"""The envelope: the one form in which every event and command travels.

Strict writer: what `Envelope.create` returns is plain JSON, complete, and readable by its contract.
Tolerant reader: `Envelope.decode` asks for event id, subject, timestamp and payload, and keeps
every field it does not know.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

import pydantic
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    field_serializer,
    model_validator,
)
from pydantic_core import core_schema, from_json, to_json

from shared.context import Context, TraceContext, current, new_event_id, safe_id
from shared.errors import ValidationError
from shared.events import cloudevents
from shared.events import headers as header

_HEADER_SAFE = re.compile(r"[!-~]{1,256}")

_BEFORE_PAYLOAD = b',"payload":'

P = TypeVar("P", bound=BaseModel)


class Spoken(Protocol[P]):
    """What an envelope needs of a contract; `shared.events.Contract` has it."""

    @property
    def subject(self) -> str:
        """Where the message goes."""

    @property
    def payload(self) -> type[P]:
        """The type of what is said."""

    @property
    def version(self) -> int:
        """The version of the payload's form."""

    def write(self, payload: P) -> bytes:
        """Return the payload as JSON; `ValueError` when the contract could not read it back."""


class EnvelopeError(ValidationError):
    """A message is not an envelope, or a payload cannot be put into one.

    `details` lists the required fields that are ``missing`` and those that are ``invalid``.
    The message never quotes what was in them.
    """


def _json(value: object) -> object:
    """Return a value as it will arrive; `ValueError` when JSON has no form for it."""
    return from_json(to_json(value), allow_inf_nan=False)


class _OrNull:
    """Says that null may stand where a value belongs; `Envelope` puts one there."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.nullable_schema(handler(source))


class Envelope(BaseModel):
    """One event or command, with the ids that tie it to the work it came from.

    Immutable. All values are plain JSON, so decoding what was encoded gives an equal envelope.
    A timestamp without offset is taken as UTC; a null one, as older senders write it, becomes the
    time of reading.

    >>> envelope = Envelope.create(PAID, Paid(number="7"), source_service="invoice-service")
    >>> envelope.subject, envelope.payload, envelope.metadata["version"]
    ('evt.invoice.paid', {'number': '7'}, '1')
    >>> Envelope.decode(envelope.encode()) == envelope
    True
    >>> Envelope.decode(b"{}")
    EnvelopeError: envelope lacks event_id, subject, timestamp, payload
    """

    __slots__ = ("_encoded",)  # left behind by copies, which may say something else

    model_config = ConfigDict(frozen=True, extra="allow")

    event_id: str = Field(min_length=1)
    trace_id: str | None = None
    subject: str = Field(min_length=1)
    correlation_id: str | None = None
    idempotency_key: str | None = None
    timestamp: Annotated[datetime, _OrNull]
    metadata: Annotated[dict[str, Any], _OrNull] = Field(default_factory=dict)
    payload: dict[str, Any]

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        # What was just parsed is JSON already: bytes become an envelope in one pass, in Rust.
        schema = handler(source)
        return core_schema.json_or_python_schema(
            json_schema=schema,
            python_schema=core_schema.no_info_before_validator_function(_json, schema),
        )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        values = self.__dict__
        timestamp = values["timestamp"]
        if timestamp is None:
            values["timestamp"] = datetime.now(UTC)
        elif timestamp.tzinfo != UTC:
            naive = timestamp.tzinfo is None
            values["timestamp"] = (
                timestamp.replace(tzinfo=UTC) if naive else timestamp.astimezone(UTC)
            )
        if values["metadata"] is None:
            values["metadata"] = {}
        return self

    @field_serializer("timestamp")
    def _iso(self, value: datetime) -> str:
        # "+00:00" rather than "Z": `datetime.fromisoformat` reads it in every version of Python.
        return value.isoformat()

    @classmethod
    def create(
        cls,
        contract: Spoken[P],
        payload: P,
        *,
        source_service: str,
        idempotency_key: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Self:
        """Put a payload into a new envelope, with the ids of the current context.

        Outside of any context a new trace begins. Of two messages on one subject with the same
        `idempotency_key`, the stream keeps the first; without a key every envelope is another.

        Raises:
            EnvelopeError: the payload is not valid JSON, or its contract could not read it back.

        """
        context = current() or Context.start()
        what = f"payload of {contract.subject}"
        try:
            written = contract.write(payload)
        except pydantic.ValidationError as error:
            raise _envelope_error(what, error) from error
        except ValueError as error:
            raise EnvelopeError(f"{what} is not valid JSON: {error}") from error
        moment = datetime.now(UTC)
        about = {
            "event_id": new_event_id(),
            "trace_id": context.trace.trace_id,
            "subject": contract.subject,
            "correlation_id": context.correlation_id,
            "idempotency_key": idempotency_key,
            "timestamp": moment.isoformat(),
            "metadata": {
                **(metadata or {}),
                "source_service": source_service,
                "version": str(contract.version),
            },
        }
        try:
            encoded = b'%b,"payload":%b}' % (to_json(about)[:-1], written)
        except ValueError as error:
            raise EnvelopeError(f"the envelope is not valid JSON: {error}") from error
        given = metadata or idempotency_key is not None or type(source_service) is not str
        if given or may_not_be_json(written):
            envelope = cls.decode(encoded)  # what the caller gave is looked at like anybody's
        else:
            envelope = cls._of_parts(about, moment, written)
        _set(envelope, "_encoded", encoded)
        return envelope

    @classmethod
    def _of_parts(cls, about: dict[str, Any], moment: datetime, written: bytes) -> Self:
        """Return what `decode` would: all of it is our own text, and the payload read by its type.

        It is put together as by `model_construct`, which would look for each field's default.
        """
        payload = from_json(written)
        if type(payload) is not dict or cls is not Envelope:
            return cls.from_dict({**about, "payload": payload})
        envelope = _new(cls)
        _set(envelope, "__dict__", {**about, "timestamp": moment, "payload": payload})
        _set(envelope, "__pydantic_fields_set__", set(_FIELDS))
        _set(envelope, "__pydantic_extra__", {})
        _set(envelope, "__pydantic_private__", None)
        return envelope

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Read an envelope from Python values; UUIDs, datetimes, models and the like become JSON.

        Raises:
            EnvelopeError: a required field is missing, or a value does not fit or is not
                valid JSON.

        """
        if not isinstance(document, Mapping):
            raise EnvelopeError("an envelope is a JSON object")
        try:
            return cls.model_validate(document)
        except pydantic.ValidationError as error:
            raise _envelope_error("envelope", error) from error

    @classmethod
    def decode(cls, body: bytes | str) -> Self:
        """Read an envelope from the body of a message.

        Raises:
            EnvelopeError: the body is not a JSON object, or a required field is missing or invalid.

        """
        try:
            text = body if isinstance(body, bytes) else body.encode()
            if may_not_be_json(text):
                from_json(text, allow_inf_nan=False)
            envelope: Self = cls.__pydantic_validator__.validate_json(text)
            if envelope.timestamp.tzinfo is not UTC:  # else it was completed, see `_complete`
                _set(envelope, "_encoded", text)
        except pydantic.ValidationError as error:
            fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
            if fault["type"] == "json_invalid":
                raise EnvelopeError(
                    f"the body of the message is not valid JSON: {fault['msg']}"
                ) from error
            if fault["type"] == "model_type":
                raise EnvelopeError("an envelope is a JSON object") from error
            raise _envelope_error("envelope", error) from error
        except ValueError as error:
            raise EnvelopeError(f"the body of the message is not valid JSON: {error}") from error
        return envelope

    @classmethod
    def from_message(cls, body: bytes, headers: Mapping[str, str]) -> Self:
        """Read an envelope from a message: its own form, or a CloudEvent in either mode.

        The version of its payload is in its metadata, else in the header for it.

        Raises:
            EnvelopeError: it is neither, or a required field is missing or invalid.

        """
        try:
            document = cloudevents.document_of(body, headers)
        except ValueError as error:
            raise EnvelopeError(
                f"the message is not valid JSON, or not a valid CloudEvent: {error}"
            ) from error
        envelope = cls.decode(body) if document is None else cls.from_dict(document)
        if "version" not in envelope.metadata:
            version = header.version_of(headers)
            if version is not None:
                envelope.metadata["version"] = version
                _set(envelope, "_encoded", None)
        return envelope

    def to_cloudevent(self) -> dict[str, Any]:
        """Return the envelope as a CloudEvent 1.0 in the JSON event format."""
        return {**cloudevents.attributes_of(self.to_dict()), "data": self.payload}

    def cloudevent_message(
        self, mode: Literal["binary", "structured"] = "binary"
    ) -> tuple[dict[str, str], bytes]:
        """Return headers and body of the message that carries it as a CloudEvent over NATS.

        In binary mode the body is the payload and the attributes are headers; in structured mode
        the body is all of it. The other headers are those of `headers`.
        """
        headers = self.headers()
        if mode == "structured":
            headers[header.CONTENT_TYPE] = cloudevents.STRUCTURED
            return headers, to_json(self.to_cloudevent())
        attributes = cloudevents.attributes_of(self.to_dict())
        return headers | cloudevents.headers_of(attributes), to_json(self.payload)

    def to_dict(self) -> dict[str, Any]:
        """Return the envelope as plain JSON values, its unknown fields last."""
        return self.model_dump(mode="json")

    def encode(self) -> bytes:
        """Return the body of the message.

        What `create` made or `decode` read is not encoded again: do not change what is inside its
        payload and metadata, but make a copy that has other ones.
        """
        encoded: bytes | None = getattr(self, "_encoded", None)
        if encoded is not None:
            return encoded
        document = {**self.__dict__, **(self.model_extra or {})}
        document["timestamp"] = self.timestamp.isoformat()
        return to_json(document)

    def payload_as_it_came(self) -> bytes | None:
        """Return the payload's own bytes of the message, or what is not JSON; None if unknown.

        They are found without parsing: a quote that follows a comma begins a string, since inside
        of one it would follow a backslash, and what ends one is not followed by a name. So what is
        found is the name of a field. If that is not the message's own, or not its last, then behind
        its value something is left that makes it no JSON.
        """
        encoded: bytes | None = getattr(self, "_encoded", None)
        if encoded is None or not encoded.endswith(b"}"):
            return None
        _, found, payload = encoded.partition(_BEFORE_PAYLOAD)
        return payload[:-1] if found else None

    @property
    def message_id(self) -> str:
        """The id by which a stream and an inbox know this message again.

        ``<subject>:<idempotency_key>``, so that one key may be used on several subjects, else the
        event id. What a header cannot carry is replaced by its SHA-256.
        """
        name = f"{self.subject}:{self.idempotency_key}" if self.idempotency_key else self.event_id
        if _HEADER_SAFE.fullmatch(name):
            return name
        return f"sha256:{sha256(name.encode()).hexdigest()}"

    @property
    def tenant_id(self) -> str | None:
        """The tenant that the payload itself names, as its `merchant_id`, if it does."""
        merchant = self.payload.get("merchant_id")
        return safe_id(merchant) if isinstance(merchant, str) else None

    def headers(self, trace: TraceContext | None = None) -> dict[str, str]:
        """Return the headers to send beside the body.

        Args:
            trace: the span that sends; by default the current one if it belongs to the envelope's
                trace, else a new span of that trace.

        """
        context = current()
        if context is not None and self.trace_id not in {None, context.trace.trace_id}:
            context = None  # a relay's own work, say, rather than the work that made this event
        trace = trace or (context.trace if context else header.trace_from_id(self.trace_id))
        tenant = self.tenant_id or (safe_id(context.tenant_id) if context else None)
        version = str(self.metadata.get("version", ""))
        headers = {
            header.MESSAGE_ID: self.message_id,
            header.CONTENT_TYPE: "application/json",
            header.TRACEPARENT: trace.traceparent if trace else "",
            header.TRACESTATE: trace.tracestate if trace else "",
            header.CORRELATION_ID: safe_id(self.correlation_id) or "",
            header.SCHEMA_VERSION: safe_id(version) or "",
            header.TENANT: tenant or "",
        }
        return {name: value for name, value in headers.items() if value}


_FIELDS = frozenset(Envelope.model_fields)
_new, _set = object.__new__, object.__setattr__


def may_not_be_json(text: bytes) -> bool:
    """Tell whether the text holds a word that Python's JSON knows, and nobody else's does.

    In a string it does no harm. A single letter is found ten times as fast as a word.
    """
    return (b"N" in text and b"NaN" in text) or (b"I" in text and b"Infinity" in text)


def _envelope_error(what: str, error: pydantic.ValidationError) -> EnvelopeError:
    missing: list[str] = []
    invalid: list[dict[str, str]] = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        field = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "missing":
            missing.append(field)
        else:
            invalid.append({"field": field, "message": fault["msg"]})
    faults = [f"lacks {', '.join(missing)}"] if missing else []
    faults += [f"{fault['field']}: {fault['message']}".removeprefix(": ") for fault in invalid]
    return EnvelopeError(
        f"{what} {'; '.join(faults)}" if missing else f"{what}: {'; '.join(faults)}",
        details={"missing": missing, "invalid": invalid},
    )
