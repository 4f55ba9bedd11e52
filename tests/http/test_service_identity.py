"""The called service lets in whom it names."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import jwt
import pytest
from fastapi import APIRouter, Depends, FastAPI

from shared.api import Caller, only_services
from shared.config import ServiceAuthSettings
from shared.context import Context, bind, current
from shared.errors import ForbiddenError, UpstreamServiceError
from shared.http import ServiceClient
from tests.http.wire import AUTH, QUICK, SECRET, assembled, client_for

if TYPE_CHECKING:
    from tests.http.conftest import Serve


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()

    @app.get("/whoami")
    async def whoami(
        caller: Annotated[Caller, Depends(only_services("webhook-service", "billing-service"))],
    ) -> Any:
        context = current()
        assert context is not None
        return {"data": [caller.service, caller.tenant_id, context.tenant_id]}

    return app


def token(**claims: Any) -> str:
    now = int(time.time())
    standard = {"iss": "webhook-service", "aud": "credit-service", "iat": now, "exp": now + 60}
    return jwt.encode({**standard, **claims}, SECRET, "HS256", headers={"kid": "2026-11"})


async def ask(app: FastAPI, authorization: str | None) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"Authorization": authorization} if authorization is not None else {}
    async with httpx.AsyncClient(transport=transport, base_url="http://credit") as http:
        return await http.get("/whoami", headers=headers)


async def test_a_named_service_is_let_in_with_its_tenant(app: FastAPI, serve: Serve) -> None:
    async with serve(app) as url, client_for(url) as credit:
        with bind(Context.start(tenant_id="m-1")):
            assert await credit.get("/whoami") == ["webhook-service", "m-1", "m-1"]
        assert await credit.get("/whoami") == ["webhook-service", None, None]


async def test_another_service_is_not(app: FastAPI, serve: Serve) -> None:
    async with (
        serve(app) as url,
        ServiceClient(
            "credit-service", caller="catalog-service", settings=QUICK, auth=AUTH, base_url=url
        ) as credit,
    ):
        with pytest.raises(ForbiddenError):
            await credit.get("/whoami")


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param("", id="empty"),
        pytest.param("Bearer", id="no token"),
        pytest.param("Basic dTpw", id="another scheme"),
        pytest.param("Bearer nonsense", id="nonsense"),
        pytest.param(f"Bearer {token(exp=1)}", id="expired"),
        pytest.param(f"Bearer {token(aud='billing-service')}", id="for another service"),
        pytest.param(f"Bearer {jwt.encode({'iss': 'webhook-service'}, '', 'none')}", id="unsigned"),
    ],
)
async def test_without_a_valid_token_the_answer_is_401(
    app: FastAPI, authorization: str | None
) -> None:
    answer = await ask(assembled(app), authorization)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "UNAUTHORIZED"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_the_wrong_service_is_answered_403_and_not_told_who_may(app: FastAPI) -> None:
    answer = await ask(assembled(app), f"Bearer {token(iss='catalog-service')}")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "FORBIDDEN"
    assert "webhook" not in answer.text


async def test_without_secrets_nobody_is_let_in(app: FastAPI, serve: Serve) -> None:
    answer = await ask(assembled(app, auth=ServiceAuthSettings()), f"Bearer {token()}")
    assert answer.status_code == 401


async def test_a_foreign_secret_of_the_same_name_opens_nothing(app: FastAPI, serve: Serve) -> None:
    foreign = ServiceAuthSettings.model_validate({"secrets": {"2026-11": "x" * 32}})
    async with serve(app) as url, client_for(url, foreign) as credit:
        with pytest.raises(UpstreamServiceError) as failed:
            await credit.get("/whoami")
    assert failed.value.upstream_status == 401


async def test_a_whole_router_can_be_closed() -> None:
    app, router = FastAPI(), APIRouter(dependencies=[Depends(only_services("billing-service"))])
    router.add_api_route("/whoami", lambda: {"data": 1})
    app.include_router(router)
    assembled(app)
    assert (await ask(app, f"Bearer {token()}")).status_code == 403
    assert (await ask(app, f"Bearer {token(iss='billing-service')}")).status_code == 200


def test_an_endpoint_for_nobody_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="name the services"):
        only_services()


def test_the_documentation_shows_the_lock(app: FastAPI) -> None:
    document = assembled(app).openapi()
    assert document["paths"]["/whoami"]["get"]["security"] == [{"ServiceToken": []}]
