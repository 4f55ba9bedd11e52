"""How often a caller may call: limits for each client, each tenant, and single routes.

A call beyond a limit is answered with 429, `RateLimitedError` and `Retry-After`. Every answer tells
what holds and what is left in the fields `RateLimit-Policy` and `RateLimit` of
draft-ietf-httpapi-ratelimit-headers-11, which the edge sends.

A client is counted before its body is read, under the address the edge decided on, or under its
user where one is known. A tenant is counted as soon as it is known: there too, where a middleware
authenticates, else by `limit_tenant`.

Limits fail open. They protect a service from too much work, and a Redis that is away must not be
what stops all of it: calls then pass uncounted, with an error in the log when it begins, a line
when it is over, and `http_rate_limits_skipped_total`. Access must not hang on a limit.
"""

import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.api.error_answers import answer_error
from shared.api.proxies import parse_address
from shared.config import RateLimitSettings, ServiceSettings
from shared.config.settings import check_limit
from shared.context import current
from shared.errors import RateLimitedError, RedisError
from shared.metrics import http_rate_limits_skipped_total, http_requests_limited_total
from shared.metrics.http import route_template

if TYPE_CHECKING:
    from shared.api.rate_limits.counters import Counters, Hit


_logger = logging.getLogger(__name__)

Per = Literal["client", "tenant"]
Subject = tuple[str, ...]
"""Whose calls are counted together."""

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_IPV6_SITE = 64
_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Policy:
    """One limit: ``quota`` calls within any ``seconds``."""

    name: str
    per: Per
    quota: int
    seconds: int
    window: str

    @classmethod
    def parse(cls, limit: str, *, per: Per, prefix: str = "") -> Self:
        from limits import parse  # noqa: PLC0415 - who sets no limit does not load it

        item = parse(check_limit(limit))
        unit, many = item.GRANULARITY.name, item.multiples
        return cls(
            name=f"{prefix}{per}-{unit}" if many == 1 else f"{prefix}{per}-{many}-{unit}s",
            per=per,
            quota=item.amount,
            seconds=item.get_expiry(),
            window=f"1 {unit}" if many == 1 else f"{many} {unit}s",
        )


class Limiter:
    """The limits of one application, and its counters.

    Raises:
        MissingExtraError: a ``storage_url`` without ``glam-shared[redis]``.
    """

    def __init__(
        self, settings: RateLimitSettings, service: str, *, exempt: frozenset[str] = frozenset()
    ) -> None:
        self.service = service
        self.exempt = exempt
        self.client = _policies(settings.client, "client")
        self.tenant = _policies(settings.tenant, "tenant")
        self._settings = settings
        if settings.storage_url is not None:
            _ = self.counters  # a mistake is raised now, not at the first request
        self._failing = False
        self._paused_until = 0.0

    @cached_property
    def counters(self) -> "Counters":
        """What counts; made when it is asked for, so that who sets no limit does not load it."""
        from shared.api.rate_limits.counters import Counters  # noqa: PLC0415

        return Counters(self._settings)

    def guards(self, path: str) -> bool:
        """Whether the limits of the settings hold for a path."""
        return bool(self.client or self.tenant) and path not in self.exempt

    async def check_client(self, scope: Scope) -> None:
        """Count a call for its client.

        Raises:
            RateLimitedError: there were too many.
        """
        if self.client:
            await self.check(scope, self.client, client_of(scope))

    async def check_tenant(self, scope: Scope) -> None:
        """Count a call for its tenant, if that is known; once, however often it is asked for.

        Raises:
            RateLimitedError: there were too many.
        """
        tenant = tenant_of() if self.tenant else None
        state = _state(scope)
        if tenant is not None and not state.get("tenant_limited"):
            state["tenant_limited"] = True
            await self.check(scope, self.tenant, tenant)

    async def check(
        self, scope: Scope, policies: Sequence[_Policy], subject: Subject, *, counter: str = ""
    ) -> None:
        """Count a call under each policy in turn, up to the first that refuses it.

        Args:
            scope: the connection, whose answer will tell what is left.
            policies: the shortest window first, so that what it refuses does not use up the others.
            subject: whose call it is.
            counter: what is called; the application as a whole unless given.

        Raises:
            RateLimitedError: there were too many.
        """
        headers: list[tuple[bytes, bytes]] = _state(scope).setdefault("answer_headers", [])
        # Sections 3.1 and 4.1 of the draft: Lists of Structured Fields, each item a String.
        items = (f'"{policy.name}";q={policy.quota};w={policy.seconds}' for policy in policies)
        headers.append((b"ratelimit-policy", ", ".join(items).encode()))
        key = (self.service, counter, *subject)
        for policy in policies:
            hit = await self._hit(_key(*key, str(policy.quota), str(policy.seconds)), policy)
            if hit is None:
                continue
            item = f'"{policy.name}";r={hit.remaining};t={hit.wait_seconds}'
            headers.append((b"ratelimit", item.encode()))
            if not hit.allowed:
                http_requests_limited_total.labels(service=self.service, scope=policy.per).inc()
                raise RateLimitedError(
                    limit=policy.quota,
                    window=policy.window,
                    retry_after=hit.wait_seconds,
                    policy=policy.name,
                )

    async def _hit(self, key: str, policy: _Policy) -> "Hit | None":
        """Count a call, or return ``None`` if it cannot be counted.

        A storage that fails is left alone for a second, so that its timeout is not waited for in
        every request.
        """
        if time.monotonic() >= self._paused_until:
            try:
                hit = await self.counters.hit(key, policy.quota, policy.seconds)
            except RedisError:
                self._paused_until = time.monotonic() + _PAUSE_SECONDS
                if not self._failing:
                    self._failing = True
                    _logger.exception("rate limits are off")
            else:
                if self._failing:
                    self._failing = False
                    _logger.warning("rate limits are on again")
                return hit
        http_rate_limits_skipped_total.labels(service=self.service, scope=policy.per).inc()
        return None


class RateLimits:
    """Pure ASGI middleware that counts every connection before anything of it is read."""

    def __init__(self, app: ASGIApp, *, limiter: Limiter) -> None:
        self.app = app
        self.limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or refuse it."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        if scope["path"].removeprefix(scope.get("root_path", "")) not in self.limiter.exempt:
            try:
                await self.limiter.check_client(scope)
                await self.limiter.check_tenant(scope)
            except RateLimitedError as error:
                await _refuse(scope, receive, send, error)
                return
        await self.app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] != "lifespan.startup.complete":
                await self.limiter.counters.close()
            await send(message)

        await self.app(scope, receive, closing)


class RateLimit:
    """A limit of a route's own, beside those of the settings; for `Depends`.

    >>> @app.post("/exports", dependencies=[Depends(RateLimit("1/hour", per="tenant"))])
    ... async def export() -> None: ...
    >>> [(await client.post("/exports")).status_code for _ in range(2)]
    [200, 429]

    Each route counts for itself. FastAPI has read the body by then. What authenticates has to come
    before it, for the tenant or the user to be known; a call without a tenant counts for its
    client.

    Args:
        limit: such as ``10/minute`` or ``1000 per 2 hours``.
        per: whose calls are counted together.
        name: routes under one name count together; letters, digits and ``._-``.

    Raises:
        ValueError: not a rate limit, or not a name.
    """

    raised_errors = (RateLimitedError,)
    """For OpenAPI; see `shared.api.raises`."""

    def __init__(self, limit: str, *, per: Per = "client", name: str | None = None) -> None:
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name: use letters, digits and ._- only")
        self._policies = (_Policy.parse(limit, per=per, prefix=f"{name or 'route'}-"),)
        self._per = per
        self._name = name

    async def __call__(self, connection: HTTPConnection) -> None:
        """Count a call.

        Raises:
            RateLimitedError: there were too many.
            RuntimeError: the application has no `install_rate_limits`.
        """
        scope = connection.scope
        limiter: Limiter | None = getattr(connection.app.state, "rate_limits", None)
        if limiter is None:
            raise RuntimeError("RateLimit needs install_rate_limits(app, ...)")
        subject = (tenant_of() if self._per == "tenant" else None) or client_of(scope)
        counter = self._name or f"{scope.get('method', 'WEBSOCKET')} {route_template(scope)}"
        await limiter.check(scope, self._policies, subject, counter=counter)


async def limit_tenant(connection: HTTPConnection) -> None:
    """Count a call for its tenant, under the limits of the settings.

    Whatever finds out the tenant inside the application, such as a dependency that authenticates,
    calls it then. A second call in one request does nothing, nor does one without a tenant.

    Raises:
        RateLimitedError: there were too many.
    """
    limiter: Limiter | None = getattr(connection.app.state, "rate_limits", None)
    if limiter is not None:
        await limiter.check_tenant(connection.scope)


def install_rate_limits(app: FastAPI, settings: ServiceSettings, *, service: str) -> None:
    """Hold the callers of ``app`` to the limits of the settings, and let it use `RateLimit`.

    The limits are the innermost middleware: inside of the edge, which has to be installed too, and
    of whatever authenticates. Without limits there is none. A second call replaces the first.

    Args:
        app: the application, not started yet.
        settings: its section ``rate_limiting``; paths come from ``api``.
        service: the service's name, under which its replicas count together.

    Raises:
        RuntimeError: the application has served a request already.
        MissingExtraError: a ``storage_url`` without ``glam-shared[redis]``.
        ValueError: ``storage_url`` is not a Redis URL.
    """
    if app.middleware_stack is not None:
        raise RuntimeError("install the rate limits before the application starts")
    limits, api = settings.rate_limiting, settings.api
    layer: object = RateLimits
    app.user_middleware[:] = [entry for entry in app.user_middleware if entry.cls is not layer]
    paths = (*limits.exempt_paths, api.metrics_path)
    exempt = frozenset((*paths, *(api.prefix + path for path in paths)))
    app.state.rate_limits = limiter = Limiter(limits, service, exempt=exempt)
    if limits.client or limits.tenant or limits.storage_url is not None:
        app.user_middleware.append(Middleware(RateLimits, limiter=limiter))


def client_of(scope: Scope) -> Subject:
    """Tell clients apart: by user if one is known, else by address.

    A caller with one IPv6 address has the 2^64 of its network (RFC 6177), which are one client.
    Callers without an address, as over a Unix socket, are one client too.
    """
    context = current()
    if context is not None and context.user_id is not None:
        return "user", context.tenant_id or "", context.user_id
    client = scope.get("client")
    host: str = client[0] if client else ""
    address = parse_address(host)
    if isinstance(address, IPv6Address):
        return "address", str(IPv6Network((address, _IPV6_SITE), strict=False))
    return "address", host if address is None else str(address)


def tenant_of() -> Subject | None:
    """Name the tenant of the request's context, if it has one."""
    context = current()
    return None if context is None or context.tenant_id is None else ("tenant", context.tenant_id)


async def _refuse(scope: Scope, receive: Receive, send: Send, error: RateLimitedError) -> None:
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        await answer_error(scope, error)(scope, receive, send)
    else:
        await send({"type": "websocket.close"})


def _policies(limits: Iterable[str], per: Per) -> tuple[_Policy, ...]:
    policies = {_Policy.parse(limit, per=per) for limit in limits}
    return tuple(sorted(policies, key=lambda policy: (policy.seconds, policy.quota)))


def _state(scope: Scope) -> dict[str, Any]:
    state: dict[str, Any] = scope.setdefault("state", {})
    return state


def _key(*parts: str) -> str:
    return "/".join(quote(part, safe="", errors="backslashreplace") for part in parts)
