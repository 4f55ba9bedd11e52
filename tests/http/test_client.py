"""A call from one service to another, over real sockets and with real faults."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI, Request
from prometheus_client import REGISTRY
from pydantic import BaseModel

from shared.api import PaginationDep, paginated_response, success_response
from shared.config import ConfigError, HttpClientSettings, ServiceAuthSettings
from shared.context import Context, TraceContext, bind, current
from shared.context.deadline import TIMEOUT_HEADER, within
from shared.errors import (
    CircuitOpenError,
    ForbiddenError,
    InfrastructureError,
    ProfileNotFoundError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceUnavailableError,
    UnauthorizedError,
    UpstreamServiceError,
)
from shared.http import ServiceClient
from tests.http.wire import SECRET, answered, client_for

if TYPE_CHECKING:
    from tests.http.conftest import Misbehave, Serve, Spans

OK = answered(200, '{"data": {"ok": true}}')
BUSY = answered(503, "", "Retry-After: 0")


class AccountView(BaseModel):
    id: UUID
    balance: Decimal


class Debit(BaseModel):
    account: UUID
    amount: Decimal


# -- what is answered ----------------------------------------------------------------------------


async def test_data_comes_back_typed(serve: Serve) -> None:
    app, account = FastAPI(), AccountView(id=uuid4(), balance=Decimal("12.50"))

    @app.get("/api/v1/accounts/{account_id}")
    async def read(account_id: UUID, request: Request) -> Any:
        assert account_id == account.id
        return success_response(account, request_id=request.state.request_id)

    async with serve(app) as url, client_for(f"{url}/api/v1") as credit:
        assert await credit.get(f"/accounts/{account.id}", answer=AccountView) == account
        plain = await credit.get(f"/accounts/{account.id}")
    assert plain == {"id": str(account.id), "balance": "12.50"}


async def test_a_body_and_a_query_arrive(serve: Serve) -> None:
    app, seen = FastAPI(), list[Any]()

    @app.api_route("/debits", methods=["POST", "PUT", "PATCH", "DELETE"], status_code=200)
    async def debit(request: Request) -> Any:
        seen.append((request.method, request.url.query, await request.body()))
        return {"data": None}

    order = Debit(account=uuid4(), amount=Decimal(3))
    async with serve(app) as url, client_for(url) as credit:
        await credit.post(
            "/debits", body=order, params={"dry": True, "tag": ["a", "b&c"], "no": None}
        )
        await credit.put("/debits", body=order)
        await credit.patch("/debits", body={"amount": 1})
        await credit.delete("/debits")
    assert [method for method, _, _ in seen] == ["POST", "PUT", "PATCH", "DELETE"]
    assert seen[0][1] == "dry=true&tag=a&tag=b%26c"
    assert Debit.model_validate_json(seen[0][2]) == order
    assert seen[3][2] == b""


async def test_an_answer_without_a_body_is_none(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        return answered(204, "")

    async with misbehave(answer) as server, client_for(server.url) as credit:
        assert await credit.delete("/accounts/1") is None


async def test_a_list_is_read_page_by_page(serve: Serve) -> None:
    app, asked = FastAPI(), list[str]()

    @app.get("/accounts")
    async def accounts(paging: PaginationDep, request: Request, q: str) -> Any:
        asked.append(f"{paging.page}:{q}")
        every = [{"id": str(UUID(int=n)), "balance": "1"} for n in range(7)]
        return paginated_response(
            every[paging.offset : paging.offset + paging.limit],
            page=paging.page,
            limit=paging.limit,
            total=len(every),
            request_id=request.state.request_id,
            base_url="http://elsewhere.invalid/other",
            q=q,
        )

    async with serve(app) as url, client_for(url) as credit:
        every = credit.iterate("/accounts", item=AccountView, params={"limit": 3, "q": "a b"})
        found = [account async for account in every]
    assert [account.id.int for account in found] == list(range(7))
    assert asked == ["1:a b", "2:a b", "3:a b"]


@pytest.mark.parametrize(
    "body",
    [
        '{"data": {"id": "4111-1111", "balance": "much"}}',
        '{"balance": "1"}',
        "<html>4111-1111</html>",
        "",
    ],
)
async def test_an_answer_that_is_something_else_is_the_services_fault(
    misbehave: Misbehave, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(_: int) -> bytes:
        return answered(200, body)

    caplog.set_level(logging.DEBUG, "shared")
    async with misbehave(answer) as server, client_for(server.url) as credit:
        with pytest.raises(UpstreamServiceError) as failed:
            await credit.get("/accounts/1", answer=AccountView)
    assert failed.value.retryable is False
    assert failed.value.__cause__ is failed.value.__context__ is None
    assert "4111" not in str(failed.value.to_dict()) + caplog.text


# -- who asks, and for whom ----------------------------------------------------------------------


async def test_the_ids_agree_on_both_sides(serve: Serve, spans: Spans) -> None:
    app, there = FastAPI(), list[Context]()

    @app.get("/")
    async def read() -> Any:
        context = current()
        assert context is not None
        there.append(context)
        return {"data": 1}

    here = Context.start(trace=TraceContext("1" * 32, "2" * 16, tracestate="vendor=x"))
    async with serve(app) as url, client_for(url) as credit:
        with bind(here):
            await credit.get("/")
    assert there[0].request_id == here.request_id
    assert there[0].correlation_id == here.correlation_id
    assert there[0].trace.trace_id == here.trace.trace_id
    assert there[0].trace.tracestate == "vendor=x"
    [client_span], [server_span] = spans("client"), spans("server")
    assert client_span["parent_span_id"] == here.trace.span_id
    assert server_span["parent_span_id"] == client_span["span_id"]
    assert client_span["attributes"]["status"] == 200


async def test_outside_of_any_request_ids_are_started(serve: Serve, spans: Spans) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: {"data": 1})
    async with serve(app) as url, client_for(url) as credit:
        await credit.get("/")
    assert spans("server")[0]["trace_id"] == spans("client")[0]["trace_id"]


async def test_neither_secret_nor_token_is_ever_shown(
    misbehave: Misbehave, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(number: int) -> bytes | None:
        return BUSY if number == 1 else None

    caplog.set_level(logging.DEBUG)
    async with misbehave(answer) as server, client_for(server.url, attempts=2) as credit:
        with pytest.raises(InfrastructureError) as failed:
            await credit.get("/accounts/1", params={"email": "jo@example.com"})
        logging.getLogger("test").error("failed", exc_info=failed.value)
        shown = caplog.text + repr(credit) + repr(vars(credit)) + str(failed.value.to_dict())
    tokens = [r.partition("Bearer ")[2].partition("\r\n")[0] for r in server.requests]
    assert len(tokens) == 2
    assert all(token.count(".") == 2 for token in tokens)
    assert not any(hidden in shown for hidden in [SECRET, *tokens])


async def test_without_a_secret_no_token_is_sent(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        return OK

    none = ServiceAuthSettings()
    async with misbehave(answer) as server, client_for(server.url, none) as credit:
        await credit.get("/")
    assert "authorization" not in server.requests[0].lower()


async def test_a_cookie_is_not_carried_into_the_next_call(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        return answered(200, '{"data": 1}', "Set-Cookie: tenant=m-1")

    async with misbehave(answer) as server, client_for(server.url) as credit:
        await credit.get("/")
        await credit.get("/")
    assert not any("cookie" in request.lower() for request in server.requests)


async def test_a_path_leads_to_the_service_alone(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        return OK

    async with misbehave(answer) as server, client_for(f"{server.url}/api") as credit:
        for path in ("http://elsewhere.invalid/", "accounts", ""):
            with pytest.raises(ValueError, match="begins with a slash"):
                await credit.get(path)
        await credit.get("//elsewhere.invalid/accounts")
    assert [r.split()[1] for r in server.requests] == ["/api/accounts"]


# -- errors --------------------------------------------------------------------------------------


async def test_an_error_known_by_its_code_comes_back_as_itself(serve: Serve) -> None:
    app = FastAPI()

    @app.get("/profiles/{profile_id}")
    async def read(profile_id: str) -> Any:
        raise ProfileNotFoundError("No such profile", profile_id=profile_id, tried=0)

    async with serve(app) as url, client_for(url) as credit:
        with pytest.raises(ProfileNotFoundError) as failed:
            await credit.get("/profiles/p-1")
    assert failed.value.message == "No such profile"
    assert failed.value.details == {"profile_id": "p-1", "tried": 0}


async def test_an_unknown_code_is_an_error_of_the_service(serve: Serve) -> None:
    app = FastAPI()
    async with serve(app) as url, client_for(url) as credit:
        with pytest.raises(UpstreamServiceError) as failed:
            await credit.get("/no-such-route")
    error = failed.value
    assert (error.upstream_status, error.upstream_error) == (404, "HTTP_404")
    assert error.retryable is False


async def test_that_our_token_was_refused_is_no_401_of_our_callers(serve: Serve) -> None:
    app = FastAPI()

    @app.get("/401")
    async def unknown() -> None:
        raise UnauthorizedError

    @app.get("/403")
    async def forbidden() -> None:
        raise ForbiddenError

    async with serve(app) as url, client_for(url) as credit:
        with pytest.raises(UpstreamServiceError) as failed:
            await credit.get("/401")
        assert failed.value.upstream_error == "UNAUTHORIZED"
        with pytest.raises(ForbiddenError):
            await credit.get("/403")


async def test_an_unexpected_error_over_there_stays_there(serve: Serve) -> None:
    app, calls = FastAPI(), list[int]()

    @app.get("/")
    async def read() -> None:
        calls.append(1)
        raise ValueError("the balance of Jo is 3")

    async with serve(app) as url, client_for(url, circuit_failures=1) as credit:
        with pytest.raises(UpstreamServiceError) as failed:
            await credit.get("/")
    assert (failed.value.upstream_status, failed.value.upstream_error) == (500, "INTERNAL_ERROR")
    assert "Jo" not in str(failed.value.to_dict())
    assert len(calls) == 1
    assert credit.circuit.state == "closed"


# -- again ---------------------------------------------------------------------------------------


async def test_a_service_that_was_busy_is_asked_again(misbehave: Misbehave, spans: Spans) -> None:
    async def answer(number: int) -> bytes:
        return {1: BUSY, 2: answered(429, "", "Retry-After: 0")}.get(number, OK)

    async with misbehave(answer) as server, client_for(server.url) as credit:
        assert await credit.get("/") == {"ok": True}
    assert [span["attributes"]["attempt"] for span in spans("client")] == [1, 2, 3]
    assert [span["attributes"]["status"] for span in spans("client")] == [503, 429, 200]


@pytest.mark.parametrize("fault", [None, BUSY, answered(429, ""), b"nonsense\r\n\r\n"])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_what_may_have_been_done_is_never_sent_twice(
    misbehave: Misbehave, fault: bytes | None, method: str
) -> None:
    async def answer(_: int) -> bytes | None:
        return fault

    async with misbehave(answer) as server, client_for(server.url) as credit:
        with pytest.raises((InfrastructureError, RateLimitedError)):
            await credit.request(method, "/debits", body={"amount": 1})
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [None, BUSY])
async def test_with_an_idempotency_key_it_is_sent_again_under_the_same_key(
    misbehave: Misbehave, fault: bytes | None
) -> None:
    async def answer(number: int) -> bytes | None:
        return fault if number == 1 else OK

    async with misbehave(answer) as server, client_for(server.url) as credit:
        await credit.post("/debits", body={"amount": 1}, idempotency_key="order-7")
        await credit.post("/debits", headers={"idempotency-key": "order-8"})
    keys = [r.lower().partition("idempotency-key: ")[2].split()[0] for r in server.requests]
    assert keys == ["order-7", "order-7", "order-8"]


async def test_what_never_left_is_sent_again_whatever_it_is(serve: Serve, spans: Spans) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    async with client_for(f"http://127.0.0.1:{nobody}") as credit:
        with pytest.raises(ServiceUnavailableError):
            await credit.post("/debits")
    assert len(spans("client")) == 3


async def test_attempts_are_limited(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        return BUSY

    async with misbehave(answer) as server, client_for(server.url, attempts=4) as credit:
        with pytest.raises(UpstreamServiceError) as failed:
            await credit.get("/")
    assert len(server.requests) == 4
    assert failed.value.upstream_status == 503
    assert failed.value.retryable is True


async def test_a_wait_beyond_the_time_left_is_not_begun(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        return answered(429, "", "Retry-After: 3600")

    async with misbehave(answer) as server, client_for(server.url) as credit:
        with pytest.raises(RateLimitedError) as failed:
            await credit.get("/")
    assert failed.value.retry_after == 3600
    assert len(server.requests) == 1


async def test_a_restart_of_the_service_goes_unnoticed(serve: Serve) -> None:
    def application() -> FastAPI:
        app = FastAPI()
        app.add_api_route("/", lambda: {"data": "here"}, methods=["POST"])
        return app

    async with AsyncExitStack() as stack:
        async with serve(application()) as url:
            credit = await stack.enter_async_context(client_for(url))
            assert await credit.post("/") == "here"
        async with serve(application(), port=int(url.rpartition(":")[2])):
            assert await credit.post("/") == "here"


# -- time ----------------------------------------------------------------------------------------


async def test_a_service_that_says_nothing_is_not_waited_for(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        await asyncio.Event().wait()
        return OK

    async with misbehave(answer) as server:
        async with client_for(server.url, read_timeout_seconds=0.05) as credit:
            with pytest.raises(RequestTimeoutError):
                await credit.post("/debits")
            assert credit.circuit.status.failures == 1
        async with client_for(server.url, total_timeout_seconds=0.05) as credit:
            with pytest.raises(RequestTimeoutError):
                await credit.get("/")
            assert credit.circuit.status.failures == 1
    assert len(server.requests) == 2


async def test_a_caller_in_a_hurry_says_nothing_about_the_service(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        await asyncio.Event().wait()
        return OK

    async with misbehave(answer) as server, client_for(server.url) as credit:
        with within(1), pytest.raises(RequestTimeoutError):
            await credit.get("/")
        with within(0), pytest.raises(RequestTimeoutError, match="No time is left"):
            await credit.get("/")
        assert credit.circuit.status.failures == 0
    assert len(server.requests) == 1


async def test_the_time_left_is_told(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        return OK

    async with misbehave(answer) as server, client_for(server.url) as credit:
        await credit.get("/")
        with within(1):
            await credit.get("/")
        with within(100):
            await credit.get("/")
    told = [
        int(r.lower().partition(f"{TIMEOUT_HEADER.lower()}: ")[2].split()[0])
        for r in server.requests
    ]
    assert 0 < told[1] <= 1000 < told[0] <= 10_000
    assert 1000 < told[2] <= 10_000


# -- the circuit ---------------------------------------------------------------------------------


async def test_a_dead_service_is_left_alone_until_it_answers_again(serve: Serve) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: {"data": "here"})
    async with serve(app) as url:
        port = int(url.rpartition(":")[2])
    async with client_for(url, attempts=1, circuit_failures=2, circuit_open_seconds=0.2) as credit:
        for _ in range(2):
            with pytest.raises(ServiceUnavailableError):
                await credit.get("/")
        with pytest.raises(CircuitOpenError) as refused:
            await credit.get("/")
        assert refused.value.open_until is not None
        assert (await credit.check()).state == "open"
        labels = {"service": "webhook-service", "upstream": "credit-service"}
        assert REGISTRY.get_sample_value("http_client_circuit_open", labels) == 1

        app = FastAPI()
        app.add_api_route("/", lambda: {"data": "here"})
        async with serve(app, port=port):
            while credit.circuit.state == "open":
                await asyncio.sleep(0.01)
            assert await credit.get("/") == "here"
        assert (await credit.check()).state == "closed"
        assert REGISTRY.get_sample_value("http_client_circuit_open", labels) == 0


async def test_one_call_finds_out_while_the_others_are_refused(misbehave: Misbehave) -> None:
    well, asked = asyncio.Event(), asyncio.Event()

    async def answer(number: int) -> bytes:
        if number == 1:
            return BUSY
        asked.set()
        await well.wait()
        return OK

    async with misbehave(answer) as server:
        credit = client_for(server.url, attempts=1, circuit_failures=1, circuit_open_seconds=0.01)
        async with credit:
            with pytest.raises(UpstreamServiceError):
                await credit.get("/")
            while credit.circuit.state == "open":
                await asyncio.sleep(0.005)
            trying = asyncio.create_task(credit.get("/"))
            await asked.wait()
            with pytest.raises(CircuitOpenError):
                await credit.get("/")
            well.set()
            assert await trying == {"ok": True}
            assert credit.circuit.state == "closed"
    assert len(server.requests) == 2


async def test_the_failure_that_opens_the_circuit_is_the_one_that_is_told(
    misbehave: Misbehave,
) -> None:
    async def answer(_: int) -> bytes:
        return BUSY

    async with misbehave(answer) as server, client_for(server.url, circuit_failures=2) as credit:
        with pytest.raises(UpstreamServiceError):
            await credit.get("/")
    assert len(server.requests) == 2


async def test_answers_that_refuse_do_not_open_the_circuit(misbehave: Misbehave) -> None:
    statuses = [400, 404, 409, 422, 429, 500, 501]

    async def answer(number: int) -> bytes:
        return answered(statuses[number - 1], "")

    async with misbehave(answer) as server, client_for(server.url, circuit_failures=1) as credit:
        for _ in statuses:
            with pytest.raises((UpstreamServiceError, RateLimitedError)):
                await credit.post("/")
        assert credit.circuit.state == "closed"


async def test_a_cancelled_call_says_nothing_about_the_service(misbehave: Misbehave) -> None:
    asked = asyncio.Event()

    async def answer(_: int) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return OK

    async with misbehave(answer) as server, client_for(server.url) as credit:
        call = asyncio.create_task(credit.get("/"))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert credit.circuit.status.failures == 0


# -- life ----------------------------------------------------------------------------------------


def test_a_service_without_an_address_is_told_at_once() -> None:
    settings = HttpClientSettings(services={"billing-service": "http://billing"})
    ServiceClient("billing-service", caller="webhook-service", settings=settings)
    with pytest.raises(ConfigError, match="no address for credit-service"):
        ServiceClient("credit-service", caller="webhook-service", settings=settings)


async def test_closing_twice_is_harmless_and_closed_is_closed(misbehave: Misbehave) -> None:
    async def answer(_: int) -> bytes:
        return OK

    async with misbehave(answer) as server:
        async with client_for(server.url) as credit:
            await credit.get("/")
            await credit.close()
        await credit.close()
        with pytest.raises(RuntimeError):
            await credit.get("/")


async def test_attempts_are_counted(misbehave: Misbehave) -> None:
    async def answer(number: int) -> bytes | None:
        return {1: None, 2: BUSY}.get(number, OK)

    def counted() -> list[float]:
        labels = {"service": "webhook-service", "upstream": "credit-service", "method": "PUT"}
        name = "http_client_requests_total"
        return [
            REGISTRY.get_sample_value(name, {**labels, "status": status}) or 0
            for status in ("none", "503", "200")
        ]

    before = counted()
    async with misbehave(answer) as server, client_for(server.url) as credit:
        await credit.put("/")
    assert [after - b for after, b in zip(counted(), before, strict=True)] == [1, 1, 1]
