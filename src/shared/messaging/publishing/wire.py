"""Messages in the form NATS reads, written many at a time, and its acknowledgements.

The client's own `publish` looks at each subject, header and buffer anew, which costs about as much
as the server needs to store the message. Here what does not change is looked up once, and a whole
chunk is handed to the client in one piece (NATS client protocol, HPUB; ADR-4 for headers).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import nats.errors
from pydantic_core import from_json

from shared.errors import MessageBusError
from shared.messaging.connection.errors import bus_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg


MESSAGE_ID = "Nats-Msg-Id"

# So much is handed to the client at a time. It holds its caller up while it has 2 MiB to send.
CHUNK_BYTES = 128 * 1024

# From this size on a copy costs more than a piece more.
_LARGE_BYTES = 8 * 1024

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a token of RFC 9110, section 5.6.2
_SPACE = re.compile(r"[ \t\r\n]")
_LINE_ENDS = str.maketrans("\r\n", "  ")

# The headers of a batch that a received message was part of. Sent on with another message they
# would make it part of a batch that never comes, and the server would not store it.
_OF_A_BATCH = "Nats-Batch-"


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message ready for the wire; `message_id` is what the stream dedupes by.

    >>> paid = Envelope.create(PAID, Paid(number="7"), source_service="till")
    >>> OutgoingMessage(paid.subject, paid.encode(), paid.headers(), paid.message_id).subject
    'evt.invoice.paid'
    """

    subject: str
    body: bytes
    headers: Mapping[str, str]
    message_id: str


@dataclass(frozen=True, slots=True)
class PubAck:
    """The server's acknowledgement: stored in `stream` as `sequence`.

    `duplicate` says that a message of the same id was already there (inside the stream's dedupe
    window) and this one was not stored again.
    """

    stream: str
    sequence: int
    duplicate: bool = False


def header_block(
    message_id: str, headers: Mapping[str, str], batch: Mapping[str, str] | None = None
) -> bytes:
    """Return the headers as they stand on the wire, the message's id and `batch` among them.

    Line ends in a value become spaces, so that no value can end its line. Headers of an earlier
    batch are left out.

    Raises:
        nats.errors.BadHeaderError: a name is empty, or holds what a name must not; or a value is
            not text, as a row of JSON may have it.
    """
    lines = ["NATS/1.0"]
    sent = {MESSAGE_ID: message_id, **headers}
    sent[MESSAGE_ID] = message_id  # first, and ours
    for name, value in sent.items():
        if not _is_sent(name):
            continue
        try:
            line = value.strip()
        except AttributeError as error:
            raise nats.errors.BadHeaderError(f"header {name} is not text") from error
        lines.append(f"{name}: {line if line.isprintable() else line.translate(_LINE_ENDS)}")
    if batch is not None:
        lines += [f"{name}: {value}" for name, value in batch.items()]
    try:
        return ("\r\n".join(lines) + "\r\n\r\n").encode()
    except UnicodeEncodeError as error:
        raise nats.errors.BadHeaderError(f"a header is not text: {error}") from error


@lru_cache(maxsize=1024)
def check_subject(subject: str) -> None:
    """Raise `nats.errors.BadSubjectError` when it is empty, not text, or has white space in it."""
    if not subject or _SPACE.search(subject):
        raise nats.errors.BadSubjectError
    try:
        subject.encode()
    except UnicodeEncodeError as error:
        raise nats.errors.BadSubjectError from error


def command(subject: str, reply: str, block: bytes, body: bytes) -> tuple[bytes, ...]:
    """Return the command that publishes a message: its subject, where to answer, headers, body.

    A large body is a piece of its own, and not copied: the client puts together what it sends.
    """
    size = len(block)
    head = f"HPUB {subject} {reply} {size} {size + len(body)}\r\n".encode()
    if len(body) < _LARGE_BYTES:
        return (b"".join((head, block, body, b"\r\n")),)
    return (head + block, body, b"\r\n")


@lru_cache(maxsize=1024)
def _is_sent(name: str) -> bool:
    if not _NAME.fullmatch(name):
        raise nats.errors.BadHeaderError(name)
    return not name.startswith(_OF_A_BATCH)


def read_ack(message: Msg, subject: str) -> PubAck | MessageBusError:
    """Return what the server says of a message that was published to `subject`."""
    if message.headers and message.headers.get("Status") == "503":
        cause = nats.errors.NoRespondersError()
        error = bus_error("publish", cause, subject=subject)
        error.__cause__ = cause
        return error
    try:
        body = from_json(message.data)
        refusal = body.get("error")
        if not refusal:
            return PubAck(body["stream"], body["seq"], body.get("duplicate", False))
    except (AttributeError, KeyError, ValueError):
        # Such as the empty answer to a part of a batch, by headers the sender put there.
        return MessageBusError(
            f"publish of {subject} failed: the server's answer is not an acknowledgement",
            operation="publish",
            subject=subject,
        )
    return MessageBusError(
        f"publish of {subject} was refused: {refusal.get('description')}",
        operation="publish",
        subject=subject,
        retryable=refusal.get("code") != 400,  # noqa: PLR2004 - the request is at fault
        details={"error_code": refusal.get("err_code")},
    )
