"""Atomic batches: what may be sent together, and what the server says of it (ADR-50)."""

from __future__ import annotations

from functools import lru_cache
from secrets import token_hex
from typing import TYPE_CHECKING

from shared.errors import MessageBusError
from shared.messaging.publishing.wire import PubAck

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nats.aio.client import Client

    from shared.messaging.publishing.wire import OutgoingMessage

# The most the server takes in one batch (ADR-50, "Server limits").
BATCH_MESSAGES = 1_000

_SINCE = (2, 12)

# JetStream's error numbers (nats-server: server/errors.json): the same batch may pass later.
_INCOMPLETE = 10176


def by_stream(messages: Sequence[OutgoingMessage]) -> list[list[int]]:
    """Return the places of the messages, grouped by the stream that will take them.

    A batch lies in one stream, and subjects of one domain are taken to share one.
    """
    groups: dict[str, list[int]] = {}
    for place, message in enumerate(messages):
        groups.setdefault(domain_of(message.subject), []).append(place)
    return list(groups.values())


def split(places: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut one stream's places into as many batches as the server asks for."""
    for start in range(0, len(places), BATCH_MESSAGES):
        yield places[start : start + BATCH_MESSAGES]


def headers(count: int) -> Iterator[dict[str, str]]:
    """Return what makes so many messages one batch, message by message; the last one commits."""
    batch = token_hex(16)
    for number in range(1, count + 1):
        yield {
            "Nats-Batch-Id": batch,
            "Nats-Batch-Sequence": str(number),
            **({"Nats-Batch-Commit": "1"} if number == count else {}),
        }


def acks_of(commit: PubAck, count: int) -> list[PubAck | MessageBusError]:
    """Return each message's acknowledgement: the server tells the last one's, of a run."""
    first = commit.sequence - count + 1
    return [PubAck(commit.stream, first + number, commit.duplicate) for number in range(count)]


def unsupported(client: Client) -> str | None:
    """Return why the server takes no batches, if it takes none."""
    version = client.connected_server_version
    if (version.major, version.minor) >= _SINCE:
        return None
    return f"the server is {version.major}.{version.minor}, and batches came with 2.12"


def refused(reason: str, *, retryable: bool = False, code: int | None = None) -> MessageBusError:
    """Return the error of a batch of which the server stored nothing."""
    return MessageBusError(
        f"the batch was refused as a whole: {reason}; publish its messages by themselves",
        operation="publish",
        retryable=retryable,
        details={"batch_refused": True, "error_code": code},
    )


def whole(error: MessageBusError) -> MessageBusError:
    """Return what the failure of a commit, or of a message before it, means for the batch.

    A refusal says that nothing was stored; after a silence nobody knows.
    """
    details = error.details
    code = details.get("error_code")
    if details.get("batch_refused") or (code is None and "limit_bytes" not in details):
        return error
    return refused(str(error), retryable=error.retryable or code == _INCOMPLETE, code=code)


def held_back(before: MessageBusError) -> MessageBusError:
    """Return the error of a message that was not sent, since one before it may be missing."""
    return MessageBusError(
        f"not sent, since one before it failed: {before}",
        operation="publish",
        retryable=True,
        details={
            "held_back": True,
            **{key: True for key in ("batch_refused",) if before.details.get(key)},
        },
    )


@lru_cache(maxsize=1024)
def domain_of(subject: str) -> str:
    """Return what subjects of one stream share, as far as the subject tells.

    It is the domain of ``cmd.<domain>.<...>`` and ``evt.<domain>.<...>``, else two tokens.
    """
    tokens = subject.split(".")
    return tokens[1] if tokens[0] in {"cmd", "evt"} and len(tokens) > 1 else ".".join(tokens[:2])
