from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pydantic
import pytest
from fastapi import FastAPI

from shared.api import create_operations_router
from shared.config import ApiSettings, ServiceAuthSettings, ServiceSettings
from shared.http import sign_token

MakeApp = Callable[..., FastAPI]
Client = Callable[..., httpx.AsyncClient]

TOKEN = "0123456789abcdef-operator"
AUTH = ServiceAuthSettings.model_validate({"secrets": {"1": "0123456789abcdef0123456789abcdef"}})


def settings(environment: str, **api: Any) -> ServiceSettings:
    return ServiceSettings(environment=environment, api=ApiSettings(**api), service_auth=AUTH)


def paths(environment: str, **api: Any) -> set[str]:
    router = create_operations_router(
        settings(environment, **api), service="shop-service", version="1"
    )
    app = FastAPI()
    app.include_router(router)
    return set(app.openapi()["paths"])


def test_in_dev_they_are_there_unless_unwanted() -> None:
    assert paths("dev") == {"/info", "/log-level"}
    assert paths("dev", info=False) == {"/log-level"}
    assert paths("dev", log_level=False) == {"/info"}


def test_in_staging_they_are_there_for_operators() -> None:
    assert paths("staging") == set()
    assert paths("staging", operators_token=TOKEN) == {"/info", "/log-level"}
    assert paths("staging", operators_services=("ops-service",), info=False) == {"/log-level"}


def test_in_prod_they_are_there_for_operators_if_wanted() -> None:
    assert paths("prod") == set()
    assert paths("prod", operators_token=TOKEN) == set()
    assert paths("prod", operators_token=TOKEN, info=True) == {"/info"}
    assert paths("prod", operators_token=TOKEN, log_level=True) == {"/log-level"}


@pytest.mark.parametrize("environment", ["staging", "prod"])
@pytest.mark.parametrize("route", ["info", "log_level"])
def test_open_to_everybody_they_are_a_mistake(environment: str, route: str) -> None:
    with pytest.raises(
        pydantic.ValidationError, match=rf"in {environment} it needs api.operators_token"
    ):
        settings(environment, **{route: True})


def test_a_token_that_could_be_guessed_is_a_mistake() -> None:
    with pytest.raises(pydantic.ValidationError, match="at least 16"):
        ApiSettings(operators_token="short")


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        (f"Bearer {TOKEN}", 200, None),
        (f"bearer {TOKEN}", 200, None),
        (None, 401, "UNAUTHORIZED"),
        ("Bearer", 401, "UNAUTHORIZED"),
        (f"Basic {TOKEN}", 401, "UNAUTHORIZED"),
        (f"Bearer {TOKEN}x", 401, "UNAUTHORIZED"),
        (f"Bearer {TOKEN[:-1]}", 401, "UNAUTHORIZED"),
        ("Bearer " + "x" * 10_000, 401, "UNAUTHORIZED"),
        ("Bearer \u00fc", 401, "UNAUTHORIZED"),
        ("{ops-service}", 200, None),
        ("{shop-service}", 403, "FORBIDDEN"),
    ],
)
@pytest.mark.parametrize("environment", ["dev", "prod"])
async def test_an_operator_is_known_by_a_token(
    make_app: MakeApp,
    client: Client,
    environment: str,
    authorization: str | None,
    status: int,
    code: str | None,
) -> None:
    wanted = settings(
        environment, operators_token=TOKEN, operators_services=("ops-service",), info=True
    )
    app = make_app()
    app.include_router(create_operations_router(wanted, service="shop-service", version="1"))
    if authorization is not None and authorization.startswith("{"):
        signed = sign_token(AUTH, caller=authorization[1:-1], audience="shop-service")
        authorization = f"Bearer {signed}"
    headers = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    async with client(app) as http:
        answer = await http.get("/info", headers=headers)
    assert answer.status_code == status
    if code is not None:
        assert answer.json()["error"]["code"] == code
    assert (answer.headers.get("WWW-Authenticate") == "Bearer") is (status == 401)
    assert TOKEN not in answer.text


async def test_a_service_alone_may_be_the_operator(make_app: MakeApp, client: Client) -> None:
    app = make_app()
    wanted = settings("staging", operators_services=("ops-service",))
    app.include_router(create_operations_router(wanted, service="shop-service", version="1"))
    signed = sign_token(AUTH, caller="ops-service", audience="shop-service")
    async with client(app) as http:
        good = await http.get("/log-level", headers={"Authorization": f"Bearer {signed}"})
        bad = await http.get("/log-level", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (good.status_code, bad.status_code) == (200, 401)
