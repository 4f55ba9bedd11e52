"""Which services may call an endpoint."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from shared.api.openapi import raises
from shared.api.rate_limits.rate_limits import limit_tenant
from shared.config import ServiceAuthSettings
from shared.context import attach, current
from shared.errors import ForbiddenError, UnauthorizedError
from shared.http import Caller, verify_token

_logger = logging.getLogger(__name__)

_bearer = HTTPBearer(
    scheme_name="ServiceToken",
    bearerFormat="JWT",
    description="A token that `shared.http.ServiceClient` signs for one call.",
    auto_error=False,
)


@dataclass(frozen=True, slots=True)
class _Identity:
    auth: ServiceAuthSettings
    service: str


def install_service_identity(app: FastAPI, auth: ServiceAuthSettings, *, service: str) -> None:
    """Tell ``app`` who it is, so that `only_services` can check tokens made for it.

    A second call replaces the first.

    Args:
        app: the application.
        auth: the secrets; without any, no caller is let in.
        service: the service's name, which callers sign their tokens for.
    """
    app.state.service_identity = _Identity(auth, service)


def only_services(*names: str) -> Callable[..., Awaitable[Caller]]:
    """Let in the named services alone; for `Depends`, or for ``dependencies=`` of a router.

    >>> CallerDep = Annotated[Caller, Depends(only_services("credit"))]
    >>> @app.get("/balance")
    ... async def balance(caller: CallerDep) -> str:
    ...     return caller.service
    >>> token = sign_token(settings.service_auth, caller="credit", audience="till")
    >>> (await client.get("/balance")).status_code
    401
    >>> headers = {"Authorization": f"Bearer {token}"}
    >>> (await client.get("/balance", headers=headers)).json()
    'credit'

    The tenant of the caller's token becomes the tenant of the request's context. Without a valid
    token the answer is 401, to any other service 403.

    Args:
        *names: the services that may call.

    Raises:
        ValueError: no name; an endpoint for nobody is a mistake.
    """
    if not names:
        raise ValueError("name the services that may call")
    allowed = frozenset(names)

    @raises(UnauthorizedError, ForbiddenError)
    async def caller(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        identity: _Identity | None = getattr(request.app.state, "service_identity", None)
        if identity is None:
            raise RuntimeError("only_services needs install_service_identity(app, ...)")
        if credentials is None:
            raise UnauthorizedError("A service token is required", auth_type="Bearer")
        found = verify_token(identity.auth, credentials.credentials, audience=identity.service)
        if found.service not in allowed:
            _logger.warning("%s may not call %s", found.service, request.url.path)
            raise ForbiddenError("This service may not call here")
        context = current()
        if context is not None and found.tenant_id is not None:
            attach(replace(context, tenant_id=found.tenant_id))
            await limit_tenant(request)
        return found

    return caller
