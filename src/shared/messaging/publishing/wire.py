"""Messages in the form NATS reads, written many at a time.

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

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    lines = [f"NATS/1.0\r\n{MESSAGE_ID}: {_line(message_id)}"]
    try:
        lines += [f"{name}: {_line(headers[name])}" for name in headers if _is_sent(name)]
    except AttributeError as error:
        wrong = ", ".join(name for name, value in headers.items() if not isinstance(value, str))
        raise nats.errors.BadHeaderError(f"header {wrong} is not text") from error
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


def _line(value: str) -> str:
    value = value.strip()
    return value if value.isprintable() else value.translate(_LINE_ENDS)


@lru_cache(maxsize=1024)
def _is_sent(name: str) -> bool:
    if not _NAME.fullmatch(name):
        raise nats.errors.BadHeaderError(name)
    return name != MESSAGE_ID and not name.startswith(_OF_A_BATCH)
