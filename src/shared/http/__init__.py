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

from shared._lazy import lazy_names
from shared.http.tokens import Caller, sign_token, verify_token
from shared.resilience import CircuitBreaker, CircuitStatus

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


# A token needs no httpx.
__getattr__, __dir__ = lazy_names(__name__, {"ServiceClient": "shared.http.client"})
