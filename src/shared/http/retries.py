"""What may be sent again."""

from __future__ import annotations

import httpx

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Sent twice, they mean the same as once (RFC 9110, section 9.2.2)."""

UNAVAILABLE = frozenset({502, 503, 504})
"""The service, or the proxy in front of it, says that it cannot answer now."""

NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""No byte of the request has left, so it may be sent whatever it means."""

BROKEN_OFF = (
    httpx.CloseError,
    httpx.ReadError,
    httpx.ReadTimeout,
    httpx.RemoteProtocolError,
    httpx.WriteError,
    httpx.WriteTimeout,
)
"""The request may have been carried out."""

SERVICE_FAULTS = (httpx.ConnectError, httpx.ConnectTimeout, *BROKEN_OFF)
"""What the called service did; a full connection pool is the caller's own."""

_RETRY_LATER = UNAVAILABLE | {429}

_IN_USE = b"IDEMPOTENCY_KEY_IN_USE"


def may_send_again(fault: BaseException | None, *, idempotent: bool) -> bool:
    """Say whether a request that ended with ``fault`` may be sent again, and may then succeed."""
    if isinstance(fault, NOT_SENT):
        return True
    if isinstance(fault, httpx.HTTPStatusError):
        status = fault.response.status_code
        # 409 of a request that is still being worked on under our key: its answer will be ours.
        in_use = status == httpx.codes.CONFLICT and _IN_USE in fault.response.content
        return idempotent and (status in _RETRY_LATER or in_use)
    return idempotent and isinstance(fault, BROKEN_OFF)
