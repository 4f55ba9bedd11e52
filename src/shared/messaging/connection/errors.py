"""The one gate through which errors of the NATS client become ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors

from shared.config import redact_text
from shared.errors import MessageBusError

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long an answer of the server is waited for.
API_TIMEOUT_SECONDS = 5.0

# What a second attempt cannot mend: the message or the credentials are at fault, not the moment.
_FINAL = (
    nats.errors.AuthorizationError,
    nats.errors.BadHeaderError,
    nats.errors.BadSubjectError,
    nats.errors.InvalidUserCredentialsError,
    nats.errors.MaxPayloadError,
    nats.js.errors.BadRequestError,
)


@contextmanager
def bus_errors(
    operation: str,
    *,
    subject: str | None = None,
    stream: str | None = None,
    server: str | None = None,
) -> Iterator[None]:
    """Turn what the client raises inside into `MessageBusError`, the original as its cause.

    Raises:
        MessageBusError: `retryable` tells whether the same call may succeed later.
    """
    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise bus_error(operation, error, subject=subject, stream=stream, server=server) from error


def bus_error(
    operation: str,
    error: BaseException,
    *,
    subject: str | None = None,
    stream: str | None = None,
    server: str | None = None,
) -> MessageBusError:
    """Return `error` of the client as our own error; of `server` secrets are left out."""
    where = f" of {subject or stream}" if subject or stream else ""
    if server:
        where += f" to {redact_text(server)}"
    return MessageBusError(
        f"{operation}{where} failed: {reason_of(error)}",
        operation=operation,
        subject=subject,
        stream=stream,
        retryable=not (isinstance(error, _FINAL) or is_refusal(error)),
    )


def is_refusal(error: BaseException) -> bool:
    """Tell whether the server turned our credentials down."""
    text = str(error).lower()
    return "authorization" in text or "authentication" in text


def reason_of(error: BaseException) -> str:
    """Return one line that says what went wrong, without the client's prefix."""
    if isinstance(error, nats.js.errors.APIError):
        if error.description:
            return f"{error.description} (JetStream error {error.err_code})"
        return "JetStream does not answer"
    if isinstance(error, nats.errors.NoRespondersError):
        return "nobody answers there: no stream takes the subject, or JetStream is away"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error).removeprefix("nats: ") or type(error).__name__
