"""The routes for those who run a service: what it is, and what it logs."""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import Request

from shared.api.openapi import raises
from shared.api.routes.info import create_info_router
from shared.api.routes.log_level import create_log_level_router
from shared.config import ServiceSettings, Setting
from shared.errors import ForbiddenError, UnauthorizedError
from shared.http import verify_token

_logger = logging.getLogger(__name__)

_bearer = HTTPBearer(
    scheme_name="OperatorToken",
    description="`api.operators_token`, or the token of a service in `api.operators_services`.",
    auto_error=False,
)


def create_operations_router(
    settings: ServiceSettings,
    *,
    service: str,
    version: str,
    configuration: Sequence[Setting] = (),
    routers: Mapping[str, APIRouter] | None = None,
) -> APIRouter:
    """Make ``/info``, ``/log-level`` and ``routers``, each if the settings want it.

    Include it under the prefix.

    They tell of hosts and versions, and change what is logged, so they are for operators alone:

    ============  ====================================  ===============================
    environment   unset in ``settings.api``             set
    ============  ====================================  ===============================
    dev           served; to everybody if no operator is known
    staging       served if an operator is known         as set; an operator has to be known
    prod          not served                             as set; an operator has to be known
    ============  ====================================  ===============================

    An operator is known by ``api.operators_token`` or ``api.operators_services``. Where one is,
    nobody else is let in, in dev neither; see `only_operators`.

    Args:
        settings: the service's settings.
        service: its name.
        version: its version.
        configuration: what ``/info`` shows of the settings; see `create_info_router`.
        routers: more for operators, each under the name of its switch in ``settings.api``.
    """
    api, environment = settings.api, settings.environment
    served = environment == "dev" or (environment == "staging" and api.knows_operators)
    guards = [Depends(only_operators(settings, service=service))] if api.knows_operators else []
    parts = {
        "info": create_info_router(service, version=version, configuration=configuration),
        "log_level": create_log_level_router(),
        **(routers or {}),
    }
    router = APIRouter(dependencies=guards)
    for switch, part in parts.items():
        wanted: bool | None = getattr(api, switch)
        if served if wanted is None else wanted:
            router.include_router(part)
    return router


def only_operators(settings: ServiceSettings, *, service: str) -> Callable[..., Awaitable[None]]:
    """Let in operators alone; for `Depends`, or for ``dependencies=`` of a router.

    The answer is 401 without a token, and to one that is neither the operators' nor a service's;
    403 to the token of a service that is not named.

    >>> guard = Depends(only_operators(settings, service="till"))
    >>> @app.delete("/cache", dependencies=[guard])
    ... async def clear() -> None: ...
    >>> token = settings.api.operators_token.get_secret_value()
    >>> (await client.delete("/cache")).status_code
    401
    >>> headers = {"Authorization": f"Bearer {token}"}
    >>> (await client.delete("/cache", headers=headers)).status_code
    200

    Args:
        settings: ``api.operators_token``, ``api.operators_services`` and the services' secrets.
        service: this service, for which a caller's token has to be made.
    """
    token = settings.api.operators_token
    secret = None if token is None else token.get_secret_value().encode()
    services = frozenset(settings.api.operators_services)

    @raises(UnauthorizedError, ForbiddenError)
    async def operator(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> None:
        if credentials is None:
            raise UnauthorizedError("An operator's token is required", auth_type="Bearer")
        shown = credentials.credentials
        if secret is not None and hmac.compare_digest(shown.encode(), secret):
            request.state.operator = "operator"
            return
        if not services:
            _logger.warning("operator token refused for %s", request.url.path)
            raise UnauthorizedError("A valid operator's token is required", auth_type="Bearer")
        caller = verify_token(settings.service_auth, shown, audience=service)
        if caller.service not in services:
            _logger.warning("%s may not call %s", caller.service, request.url.path)
            raise ForbiddenError("This service may not call here")
        request.state.operator = caller.service

    return operator
