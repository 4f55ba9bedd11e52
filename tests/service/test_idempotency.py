"""A request that is sent twice under one ``Idempotency-Key`` takes effect once."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, Header, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy import text
from starlette.responses import JSONResponse, StreamingResponse

from shared.config import DatabaseSettings, NatsSettings, ServiceSettings
from shared.context import current
from shared.context.context import attach
from shared.database import Database
from shared.delivery import Janitor
from shared.dev import ServiceProcess
from shared.dev.environment import service_environment
from shared.dev.server import free_port
from shared.errors import ConflictError, UnauthorizedError
from shared.events import Contract
from shared.service import (
    Application,
    DeclarationError,
    IdempotencyKeyRequired,
    IdempotentRoute,
    Service,
    UnitOfWorkDep,
)

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}


class Order(BaseModel):
    item: str


ORDERED = Contract("evt.merchant.ordered", Order)


class Shop:
    """What the routes are told by a test, and what they did beside the database."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_the_gate = asyncio.Event()
        self.failure: Exception | None = None
        self.mails: list[str] = []


async def asking_tenant(x_tenant: Annotated[str | None, Header()] = None) -> str | None:
    """Say who asks, as an authentication would."""
    if x_tenant == "stranger":
        raise UnauthorizedError
    context = current()
    assert context is not None
    attach(replace(context, tenant_id=x_tenant))
    return x_tenant


async def count_asked(uow: UnitOfWorkDep) -> None:
    await uow.session.execute(text("INSERT INTO asked DEFAULT VALUES"))


def shop_service(shop: Shop) -> Service[ServiceSettings]:
    service = Service("shop-service", publishes=[ORDERED])
    router = APIRouter(prefix="/orders", route_class=IdempotentRoute)
    add_order(router, shop)
    add_other_routes(router, shop)

    @service.provides
    async def tables(database: Database) -> AsyncIterator[Shop]:
        async with database.transaction() as session:
            await session.execute(text("CREATE TABLE IF NOT EXISTS orders (item text NOT NULL)"))
            await session.execute(text("CREATE TABLE IF NOT EXISTS asked (id serial)"))
        yield shop

    @service.router.post("/unguarded", dependencies=[IdempotencyKeyRequired])
    async def unguarded() -> None: ...

    service.router.include_router(router)
    return service


async def place(order: Order, uow: UnitOfWorkDep) -> None:
    await uow.session.execute(text("INSERT INTO orders VALUES (:item)"), {"item": order.item})
    uow.outbox.add(ORDERED, order)


async def body_size(request: Request) -> int:
    return sum([len(chunk) async for chunk in request.stream()])


def add_order(router: APIRouter, shop: Shop) -> None:
    @router.post("", status_code=201, dependencies=[Depends(count_asked)])
    async def ask(
        order: Order,
        uow: UnitOfWorkDep,
        response: Response,
        background: BackgroundTasks,
        asker: Annotated[str | None, Depends(asking_tenant)],
        note: Annotated[str, Query()] = "",
    ) -> Order:
        await place(order, uow)
        shop.at_the_gate.set()
        await shop.gate.wait()
        if shop.failure is not None:
            raise shop.failure
        response.headers["Location"] = f"/orders/{order.item}"
        response.headers.append("Link", "a")
        response.headers.append("Link", "b")
        response.set_cookie("session", "secret")
        background.add_task(shop.mails.append, order.item)
        return order


def add_other_routes(router: APIRouter, shop: Shop) -> None:
    @router.post("/in-a-thread", status_code=202)
    def ask_in_a_thread(order: Order) -> Order:
        shop.mails.append(order.item)
        return order

    @router.post("/measured")
    async def measure(size: Annotated[int, Depends(body_size)], uow: UnitOfWorkDep) -> int:
        await place(Order(item="measured"), uow)
        return size

    @router.put("/measured")
    async def measure_anew(request: Request) -> int:
        return await body_size(request)

    @router.post("/refused")
    async def refuse(order: Order, uow: UnitOfWorkDep) -> JSONResponse:
        await place(order, uow)
        return JSONResponse({"refused": order.item}, status_code=402)

    @router.post("/streamed")
    async def ask_for_a_stream(order: Order, uow: UnitOfWorkDep) -> StreamingResponse:
        await place(order, uow)
        return StreamingResponse(iter([b"a", b"b"]))

    @router.delete("/{item}", status_code=204)
    async def cancel(item: str, uow: UnitOfWorkDep) -> None:
        await uow.session.execute(text("DELETE FROM orders WHERE item = :item"), {"item": item})
        uow.outbox.add(ORDERED, Order(item=item))

    @router.post("/required", dependencies=[IdempotencyKeyRequired])
    async def ask_with_a_key(order: Order, uow: UnitOfWorkDep) -> Order:
        await place(order, uow)
        return order

    @router.get("")
    async def read() -> int:
        shop.mails.append("read")
        return len(shop.mails)


class Client:
    """A client of a running shop."""

    def __init__(self, application: Application[ServiceSettings], http: httpx.AsyncClient) -> None:
        self.application = application
        self.http = http

    async def ask(
        self,
        path: str = "/orders",
        *,
        item: str = "lamp",
        key: dict[str, str] | None = None,
        tenant: str | None = None,
    ) -> httpx.Response:
        headers = dict(KEY if key is None else key)
        if tenant is not None:
            headers["X-Tenant"] = tenant
        return await self.http.post(path, json={"item": item}, headers=headers)

    async def count(self, table: str) -> int:
        async with self.application.database.transaction() as session:
            return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)

    async def effects(self) -> tuple[int, int]:
        """How many orders and how many messages there are."""
        return await self.count("orders"), await self.count("outbox")


@pytest.fixture
def shop() -> Shop:
    return Shop()


@asynccontextmanager
async def opened(
    shop: Shop, database: DatabaseSettings, nats: NatsSettings
) -> AsyncIterator[Client]:
    settings = ServiceSettings(database=database, nats=nats)
    async with shop_service(shop).assemble(settings) as application:
        transport = httpx.ASGITransport(application.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop/api/v1") as http:
            yield Client(application, http)


@pytest.fixture
async def client(
    shop: Shop, database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> AsyncIterator[Client]:
    async with opened(shop, database_settings, nats_settings) as client:
        yield client


async def test_the_same_request_again_gets_the_same_answer_and_has_no_second_effect(
    client: Client, shop: Shop
) -> None:
    first, second = await client.ask(), await client.ask()
    assert (first.status_code, first.json()) == (201, {"item": "lamp"})
    assert (second.status_code, second.content) == (201, first.content)
    for name in ("Content-Type", "Content-Length", "Location"):
        assert second.headers[name] == first.headers[name]
    assert second.headers.get_list("Link") == first.headers.get_list("Link") == ["a", "b"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert await client.effects() == (1, 1)


async def test_a_repeated_answer_hands_out_no_cookie_and_has_ids_of_its_own(
    client: Client,
) -> None:
    first, second = await client.ask(), await client.ask()
    assert "session=secret" in first.headers["Set-Cookie"]
    assert "Set-Cookie" not in second.headers
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert len(second.headers.get_list("X-Request-ID")) == 1


async def test_without_a_key_or_under_another_one_it_is_another_request(client: Client) -> None:
    for key in ({}, {}, {"Idempotency-Key": "1"}, {"Idempotency-Key": "2"}):
        assert (await client.ask(key=key)).status_code == 201
    assert await client.effects() == (4, 4)
    assert await client.count("idempotency_keys") == 2


async def test_of_twenty_at_once_one_is_answered_and_nobody_waits_for_it(
    client: Client, shop: Shop
) -> None:
    shop.gate.clear()
    asked = [asyncio.create_task(client.ask()) for _ in range(20)]
    async with asyncio.timeout(120):
        while sum(task.done() for task in asked) < 19:
            await asyncio.sleep(0.02)
    shop.gate.set()
    answers = await asyncio.gather(*asked)
    (first,) = [answer for answer in answers if answer.status_code == 201]
    assert "Idempotency-Replayed" not in first.headers
    for other in answers:
        if other is not first:
            assert other.status_code == 409
            assert other.json()["error"]["code"] == "IDEMPOTENCY_KEY_IN_USE"
            assert other.headers["Retry-After"] == "1"
    assert (await client.ask()).headers["Idempotency-Replayed"] == "true"
    assert await client.effects() == (1, 1)


async def test_twenty_that_try_until_they_are_answered_have_one_effect(client: Client) -> None:
    async def persist() -> httpx.Response:
        async with asyncio.timeout(120):
            while (answer := await client.ask()).status_code == 409:
                await asyncio.sleep(0)
            return answer

    answers = await asyncio.gather(*(persist() for _ in range(20)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(201, '{"item":"lamp"}')}
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert await client.effects() == (1, 1)


@pytest.mark.parametrize(
    ("method", "path", "item"),
    [
        ("POST", "/orders", "chair"),
        ("POST", "/orders?note=urgent", "lamp"),
        ("POST", "/orders/refused", "lamp"),
        ("DELETE", "/orders/lamp", "lamp"),
    ],
)
async def test_another_request_under_the_key_is_refused(
    client: Client, method: str, path: str, item: str
) -> None:
    await client.ask()
    answer = await client.http.request(method, path, json={"item": item}, headers=KEY)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "IDEMPOTENCY_KEY_REUSED"
    assert await client.effects() == (1, 1)


@pytest.mark.parametrize("failure", [ConflictError("sold out"), ZeroDivisionError("a defect")])
async def test_an_attempt_that_failed_leaves_nothing_and_may_be_made_again(
    client: Client, shop: Shop, failure: Exception
) -> None:
    shop.failure = failure
    failed = await client.ask()
    assert failed.status_code in {409, 500}
    assert await client.effects() == (0, 0)
    shop.failure = None
    answer = await client.ask()
    assert answer.status_code == 201
    assert "Idempotency-Replayed" not in answer.headers
    assert await client.effects() == (1, 1)


async def test_a_request_that_is_not_valid_does_not_spend_its_key(client: Client) -> None:
    wrong = await client.http.post("/orders", json={"itme": "lamp"}, headers=KEY)
    assert wrong.status_code == 422
    assert wrong.json()["error"]["code"] == "VALIDATION_ERROR"
    assert (await client.ask()).status_code == 201


async def test_a_request_that_is_cancelled_leaves_nothing(client: Client, shop: Shop) -> None:
    shop.gate.clear()
    asked = asyncio.create_task(client.ask())
    async with asyncio.timeout(120):
        await shop.at_the_gate.wait()
    assert (await client.ask()).status_code == 409
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    shop.gate.set()
    assert "Idempotency-Replayed" not in (await client.ask()).headers
    assert await client.effects() == (1, 1)


async def test_an_error_that_is_returned_commits_and_is_remembered(client: Client) -> None:
    first, second = await client.ask("/orders/refused"), await client.ask("/orders/refused")
    assert first.status_code == second.status_code == 402
    assert first.json() == second.json() == {"refused": "lamp"}
    assert await client.effects() == (1, 1)


async def test_what_dependencies_write_is_undone_when_an_answer_is_repeated(
    client: Client,
) -> None:
    await client.ask()
    await client.ask()
    assert await client.count("asked") == 1


async def test_tenants_do_not_share_keys(client: Client) -> None:
    for tenant in ("shop-1", "shop-2"):
        first, second = await client.ask(tenant=tenant), await client.ask(tenant=tenant)
        assert "Idempotency-Replayed" not in first.headers
        assert "Idempotency-Replayed" in second.headers
    assert await client.effects() == (2, 2)


async def test_a_key_tells_nothing_to_whoever_may_not_call(client: Client) -> None:
    await client.ask()
    answer = await client.ask(tenant="stranger")
    assert answer.status_code == 401
    assert "Idempotency-Replayed" not in answer.headers


async def test_a_key_past_its_retention_is_new(client: Client) -> None:
    await client.ask()
    async with client.application.database.transaction() as session:
        await session.execute(
            text("UPDATE idempotency_keys SET answered_at = now() - interval '25 hours'")
        )
    await Janitor(client.application.database, client.application.settings.delivery).sweep()
    assert "Idempotency-Replayed" not in (await client.ask()).headers
    assert await client.effects() == (2, 2)


@pytest.mark.parametrize(
    "value",
    ["", '""', '"', '"a', 'a"', '"a"b"', "a b", '"a", "b"', "a,b", "a;v=1", "é", "x" * 256,
     f'"{"x" * 256}"', r'"\a"'],
)  # fmt: skip
async def test_what_is_no_key_is_refused_before_anything_is_done(
    client: Client, value: str
) -> None:
    headers = {b"Idempotency-Key": value.encode("latin-1")}
    answer = await client.http.post("/orders", json={"item": "lamp"}, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "IDEMPOTENCY_KEY_INVALID"
    assert await client.effects() == (0, 0)


async def test_two_keys_are_no_key(client: Client) -> None:
    answer = await client.http.post(
        "/orders",
        json={"item": "lamp"},
        headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
    )
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ("ch_1a2B.c:d/e=f~", '"ch_1a2B.c:d/e=f~"'),
        ("x" * 255, f'"{"x" * 255}"'),
        (r'"a\"b\\c"', r' "a\"b\\c" '),
    ],
)
async def test_a_bare_value_and_a_string_are_the_same_key(
    client: Client, value: str, same: str
) -> None:
    await client.ask(key={"Idempotency-Key": value})
    again = await client.ask(key={"Idempotency-Key": same})
    assert again.headers["Idempotency-Replayed"] == "true"


async def test_a_route_may_require_a_key(client: Client) -> None:
    refused = await client.ask("/orders/required", key={})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "IDEMPOTENCY_KEY_MISSING"
    assert "header Idempotency-Key" in refused.json()["error"]["message"]
    assert (await client.ask("/orders/required")).status_code == 200
    assert (await client.ask("/orders/required")).headers["Idempotency-Replayed"] == "true"
    assert await client.effects() == (1, 1)


async def test_a_key_that_is_required_where_nothing_honours_it_is_a_loud_mistake(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await client.ask("/unguarded")).status_code == 500
    assert "APIRouter(route_class=IdempotentRoute)" in caplog.text


async def test_a_route_without_a_unit_of_work_may_run_in_a_thread(
    client: Client, shop: Shop
) -> None:
    first, second = await client.ask("/orders/in-a-thread"), await client.ask("/orders/in-a-thread")
    assert (first.status_code, first.json()) == (202, {"item": "lamp"})
    assert (second.status_code, second.json()) == (202, {"item": "lamp"})
    assert shop.mails == ["lamp"]


async def test_a_dependency_may_read_the_body_as_a_stream(client: Client) -> None:
    first, second = await client.ask("/orders/measured"), await client.ask("/orders/measured")
    assert first.json() == second.json() == len(b'{"item":"lamp"}')
    assert await client.effects() == (1, 1)


async def test_another_method_makes_another_request(client: Client) -> None:
    await client.ask("/orders/measured")
    answer = await client.http.put("/orders/measured", json={"item": "lamp"}, headers=KEY)
    assert answer.status_code == 422


async def test_an_answer_without_a_body_is_repeated(client: Client) -> None:
    await client.ask(key={})
    for _ in range(2):
        answer = await client.http.delete("/orders/lamp", headers=KEY)
        assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert await client.effects() == (0, 2)


async def test_a_key_means_nothing_on_a_safe_method(client: Client, shop: Shop) -> None:
    for count in (1, 2):
        answer = await client.http.get("/orders", headers=KEY)
        assert (answer.status_code, answer.json()) == (200, count)
    assert await client.count("idempotency_keys") == 0


async def test_background_tasks_run_after_the_first_answer_alone(
    client: Client, shop: Shop
) -> None:
    await client.ask()
    await client.ask()
    assert shop.mails == ["lamp"]


async def test_a_stream_is_refused_under_a_key_and_leaves_nothing(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await client.ask("/orders/streamed")).status_code == 500
    assert "a StreamingResponse is a stream, which Idempotency-Key cannot repeat" in caplog.text
    assert await client.effects() == (0, 0)
    assert (await client.ask("/orders/streamed", key={})).content == b"ab"


def test_an_endpoint_that_is_a_generator_is_refused_when_it_is_declared() -> None:
    router = APIRouter(route_class=IdempotentRoute)

    async def numbers() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(DeclarationError, match="numbers answers with a stream"):
        router.post("/numbers")(numbers)
    router.get("/numbers")(numbers)


async def test_the_api_document_shows_the_header_and_its_errors(client: Client) -> None:
    document = (await client.http.get("/openapi.json")).json()
    paths = document["paths"]

    def header(path: str, method: str = "post") -> list[dict[str, Any]]:
        given = paths[f"/api/v1/orders{path}"][method].get("parameters", [])
        return [parameter for parameter in given if parameter["in"] == "header"]

    (required,) = header("/required")
    assert (required["name"], required["required"]) == ("Idempotency-Key", True)
    assert {p["name"]: p["required"] for p in header("")}["Idempotency-Key"] is False
    assert header("", "get") == []
    operation = paths["/api/v1/orders"]["post"]
    assert {"201", "400", "409", "422"} <= operation["responses"].keys()
    assert operation["summary"] == "Ask"


DYING = """
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from shared.events import Contract
from shared.service import IdempotentRoute, Service, UnitOfWorkDep


class Order(BaseModel):
    item: str


ORDERED = Contract("evt.merchant.ordered", Order)
service = Service("dying-service", publishes=[ORDERED])
router = APIRouter(prefix="/orders", route_class=IdempotentRoute)


def die(moment: str) -> None:
    order = Path("die")
    if order.exists() and order.read_text() == moment:
        order.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


async def behind_the_commit() -> AsyncIterator[None]:
    yield
    die("after the commit")


# Entered before the unit of work, it is left behind it, and before the answer is sent.
@router.post("", status_code=201, dependencies=[Depends(behind_the_commit, scope="function")])
async def ask(order: Order, uow: UnitOfWorkDep) -> Order:
    uow.outbox.add(ORDERED, order)
    await uow.session.flush()
    die("before the commit")
    return order


service.router.include_router(router)
"""


@pytest.mark.parametrize(
    ("moment", "replayed"), [("before the commit", False), ("after the commit", True)]
)
async def test_a_request_whose_process_is_killed_takes_effect_once_when_it_is_sent_again(
    tmp_path: Path,
    database_settings: DatabaseSettings,
    nats_settings: NatsSettings,
    moment: str,
    replayed: bool,
) -> None:
    (tmp_path / "dying.py").write_text(DYING)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shared.yml").write_text("environment: dev\n")
    (tmp_path / "die").write_text(moment)
    port = free_port()
    base = f"http://127.0.0.1:{port}/api/v1"
    process = ServiceProcess(
        [sys.executable, "-m", "shared.cli", "run", "dying.py"],
        env=service_environment(
            "dying-service",
            database=database_settings,
            nats_url=nats_settings.servers[0],
            port=port,
        ),
        cwd=tmp_path,
        log_file=tmp_path / "output.log",
        ready_url=f"{base}/health/ready",
    )
    order = {"url": f"{base}/orders", "json": {"item": "lamp"}, "headers": KEY}
    async with process, httpx.AsyncClient(trust_env=False) as http, asyncio.timeout(120):
        with pytest.raises(httpx.TransportError):
            await http.post(**order)  # type: ignore[arg-type]
        assert await process.wait(timeout_seconds=30) == -9
        await process.restart()
        # PostgreSQL may not yet have noticed that the first process is gone.
        while (answer := await http.post(**order)).status_code == 409:  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
    assert (answer.status_code, answer.json()) == (201, {"item": "lamp"})
    assert ("Idempotency-Replayed" in answer.headers) is replayed
    async with (
        Database(database_settings, schema="dying") as database,
        database.transaction() as session,
    ):
        assert await session.scalar(text("SELECT count(*) FROM outbox")) == 1
