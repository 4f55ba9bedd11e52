"""The token a service shows to another: a JSON web token (RFC 7519), signed with HS256.

    header   alg "HS256", kid: which secret
    claims   iss: the calling service, aud: the called one, iat, exp, tenant_id if there is one

The tenant travels in it, since a caller that may invent a tenant may read any. A secret that
several services share proves that one of them signed, not which one: give a service a secret of its
own, under a key id `<service>/<name>`, and no other can sign in its name with it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import jwt

from shared.errors import UnauthorizedError

if TYPE_CHECKING:
    from shared.config import ServiceAuthSettings

_logger = logging.getLogger(__name__)

_ALGORITHM = "HS256"
_MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Caller:
    """The service that calls, and the tenant it calls for, as its token proves."""

    service: str
    tenant_id: str | None = None


def sign_token(
    auth: ServiceAuthSettings, *, caller: str, audience: str, tenant_id: str | None = None
) -> str | None:
    """Make a token for one call, valid for `token_seconds`.

    Args:
        auth: the secrets; without one there is no token, and ``None`` is returned.
        caller: the service that calls.
        audience: the service that is called, the only one that accepts the token.
        tenant_id: the tenant the call is made for.
    """
    key_id = auth.signing_key_id
    if key_id is None:
        return None
    now = time.time()
    claims: dict[str, Any] = {
        "iss": caller,
        "aud": audience,
        "iat": int(now),
        "exp": int(now + auth.token_seconds),
    }
    if tenant_id is not None:
        claims["tenant_id"] = tenant_id
    secret = auth.secrets[key_id].get_secret_value()
    return jwt.encode(claims, secret, _ALGORITHM, headers={"kid": key_id})


def verify_token(auth: ServiceAuthSettings, token: str, *, audience: str) -> Caller:
    """Read who calls from a token.

    The reason of a refusal is in the log alone: a caller without a valid token learns nothing.

    Args:
        auth: the secrets; without any, every token is refused.
        token: the token as it came.
        audience: the service that is called, this one.

    Raises:
        UnauthorizedError: forged, unsigned, expired, made for another service, or no token.
    """
    if len(token) > _MAX_LENGTH:
        _refuse("too long")
    try:
        key_id = str(jwt.get_unverified_header(token).get("kid"))
        secret = auth.secrets.get(key_id)
        if secret is None:
            _refuse("signed with a secret this service does not have")
        claims = jwt.decode(
            token,
            secret.get_secret_value(),
            algorithms=[_ALGORITHM],
            audience=audience,
            leeway=auth.leeway_seconds,
            options={"require": ["iss", "aud", "iat", "exp"], "strict_aud": True},
        )
    except jwt.InvalidTokenError as error:
        _refuse(type(error).__name__, error)
    issuer, tenant_id = claims["iss"], claims.get("tenant_id")
    if not isinstance(issuer, str) or not isinstance(tenant_id, str | None):
        _refuse("claims of the wrong type")
    owner, _, _ = key_id.rpartition("/")
    if owner not in {"", issuer}:
        _refuse("signed with the secret of another service")
    return Caller(issuer, tenant_id)


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    _logger.warning("service token refused: %s", reason)
    raise UnauthorizedError("A valid service token is required", auth_type="Bearer") from cause
