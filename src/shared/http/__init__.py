"""Calls from one service to another over HTTP.

async with ServiceClient(
    "credit-service",
    caller="webhook-service",
    settings=settings.http_client,
    auth=settings.service_auth,
) as credit:
    account = await credit.get(f"/accounts/{account_id}", answer=AccountView)

The called service lets in whom it names, with `shared.api.only_services`.
"""

from typing import TYPE_CHECKING

from shared.http.circuit import CircuitBreaker, CircuitStatus
from shared.http.tokens import Caller, sign_token, verify_token

if TYPE_CHECKING:
    from shared.http.client import ServiceClient

__all__ = [
    "Caller",
    "CircuitBreaker",
    "CircuitStatus",
    "ServiceClient",
    "sign_token",
    "verify_token",
]


def __getattr__(name: str) -> object:
    """Load the client, and httpx with it, when it is asked for."""
    if name == "ServiceClient":
        from shared.http.client import ServiceClient  # noqa: PLC0415 - a token needs no httpx

        return ServiceClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
