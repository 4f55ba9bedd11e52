"""The examples of the first design's README, typed as its users type them.

A service, an error, a log line, the configuration and the idempotency key: in one process, over
HTTP, with nothing of the later chassis.
"""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import prometheus_client
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

IMPORTS = """
from shared.api import ApiResponse, ErrorDetail, ErrorResponse, Links, Meta, Pagination
from shared.api import setup_middleware, create_health_router
from shared.api import success_response, error_response, paginated_response, create_response
from shared.api import PaginationDep, PaginationParams, RequestIdDep, CorrelationIdDep, ClientIpDep
from shared.api import RequestContextDep
from shared.api.health import create_health_router
from shared.api.middleware import setup_middleware
from shared.api.dependencies import RequestContextDep, PaginationDep
from shared.api.responses import success_response, error_response, paginated_response
from shared.config.loader import merged_config, flatten_config
from shared.config import merged_config, flatten_config
from shared.database import Base, MerchantMixin, Repository, get_db_session
from shared.errors import NotFoundError, ValidationError, ConflictError, RequestTimeoutError
from shared.errors import UnauthorizedError, ForbiddenError, RateLimitedError, GlamBaseError
from shared.errors import DatabaseError, UpstreamServiceError, CircuitOpenError, MessageBusError
from shared.errors import with_error_mapping, classify_http_error, wrap_external_error
from shared.mappers import BaseMapper, CRUDMapper
from shared.messaging import JetStreamWrapper
from shared.utils.idempotency_key_generator import generate_idempotency_key
from shared.utils.logger import ServiceLogger, create_logger
"""


@pytest.mark.parametrize("line", [line for line in IMPORTS.splitlines() if line])
def test_each_import_line_works(line: str) -> None:
    exec(line, {})


def make_app() -> FastAPI:
    from shared.api import (
        ApiResponse,
        PaginationDep,
        RequestContextDep,
        create_health_router,
        paginated_response,
        setup_middleware,
        success_response,
    )
    from shared.errors import NotFoundError
    from shared.utils.logger import create_logger

    logger = create_logger("catalog-service")

    class Item(BaseModel):
        id: int
        name: str

    app = FastAPI(title="Catalog", exception_handlers={})
    setup_middleware(app, service_name="catalog-service", enable_metrics=True, metrics_path="/m")
    app.include_router(create_health_router("catalog-service"), prefix="/api/v1")

    @app.get("/items/{item_id}", response_model=ApiResponse[Item])
    async def get_item(item_id: int, ctx: RequestContextDep) -> Any:
        logger.info("Fetching item %s", item_id, extra={"item_id": item_id})
        if item_id == 0:
            raise NotFoundError("Item not found", resource="item", resource_id=item_id)
        return success_response(Item(id=item_id, name="hat"), ctx.request_id, ctx.correlation_id)

    @app.get("/items")
    async def list_items(
        pagination: PaginationDep, ctx: RequestContextDep, request: Request
    ) -> Any:
        return paginated_response(
            data=[Item(id=1, name="hat")],
            page=pagination.page,
            limit=pagination.limit,
            total=120,
            base_url=str(request.url.path),
            request_id=ctx.request_id,
            correlation_id=ctx.correlation_id,
            colour="blue & white",
        )

    return app


async def test_the_quick_start_answers() -> None:
    app = make_app()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://catalog") as client:
        ids = {"X-Request-ID": "req-1", "X-Correlation-ID": "corr-1"}
        item = await client.get("/items/7", headers=ids)
        page = (await client.get("/items?page=2&limit=50", headers=ids)).json()
        missing = await client.get("/items/0", headers=ids)
        wrong = await client.get("/items/seven", headers=ids)
        nowhere = await client.get("/nowhere", headers=ids)
        health = await client.get("/api/v1/health")
        metrics = await client.get("/m")
    assert item.json()["data"] == {"id": 7, "name": "hat"}
    assert item.headers["X-Service-Name"] == "catalog-service"
    for answer in (item, missing, wrong, nowhere):
        meta = answer.json()["meta"]
        assert (meta["request_id"], meta["correlation_id"]) == ("req-1", "corr-1")
        assert answer.headers["X-Request-ID"] == "req-1"
    assert missing.status_code == 404
    assert missing.json()["error"] == {
        "code": "NOT_FOUND",
        "message": "Item not found",
        "details": {"resource": "item", "resource_id": 0},
    }
    assert wrong.json()["error"]["code"] == "VALIDATION_ERROR"
    assert wrong.json()["error"]["details"]["validation_errors"][0]["field"] == "path.item_id"
    assert nowhere.json()["error"]["code"] == "HTTP_404"
    assert page["pagination"] == {
        "page": 2,
        "limit": 50,
        "total": 120,
        "pages": 3,
        "has_next": True,
        "has_previous": True,
    }
    assert page["links"]["next"] == "/items?page=3&limit=50&colour=blue+%26+white"
    assert health.json()["status"] == "healthy"
    assert 'http_requests_total{endpoint="/items/{item_id}"' in metrics.text


async def test_a_metric_of_the_services_own_is_in_the_scrape() -> None:
    own = prometheus_client.Counter(f"hats_{uuid4().hex}", "Hats sold.")
    own.inc()
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://catalog") as client:
        assert f"{own._name}_total 1.0" in (await client.get("/m")).text


async def test_the_error_examples() -> None:
    from shared.errors import (
        DatabaseError,
        InfrastructureError,
        NotFoundError,
        RateLimitedError,
        UpstreamServiceError,
        classify_http_error,
        with_error_mapping,
    )

    error = RateLimitedError("Slow down", limit=100, window="1m", retry_after=0, shop="blue-hat")
    assert error.to_dict() == {
        "code": "RATE_LIMITED",
        "message": "Slow down",
        "details": {"limit": 100, "window": "1m", "retry_after": 0, "shop": "blue-hat"},
    }

    @with_error_mapping({ConnectionError: DatabaseError})
    async def save(fault: Exception) -> None:
        raise fault

    with pytest.raises(DatabaseError):
        await save(ConnectionResetError("gone"))
    with pytest.raises(NotFoundError):
        await save(NotFoundError("No such item"))

    request = httpx.Request("GET", "http://catalog/items")
    answer = httpx.Response(500, request=request)
    fault = httpx.HTTPStatusError("500", request=request, response=answer)
    found = classify_http_error(fault, service_name="catalog-service")
    assert isinstance(found, UpstreamServiceError)
    assert isinstance(found, InfrastructureError)


def test_the_logging_examples(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from shared.config import LoggingSettings
    from shared.logging import configure_logging
    from shared.utils.logger import create_logger

    configure_logging(LoggingSettings(level="INFO"), service="catalog-service", environment="prod")
    logger = create_logger("catalog-service")
    capfd.readouterr()
    logger.set_request_context(request_id="req-1", user_id="u-1")
    try:
        logger.info("Item %s created", 7, extra={"item_id": 7})
        logger.info("done", merchant_id="m-1")
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("Failed")
    finally:
        logger.clear_request_context()
    first, second, third = map(json.loads, capfd.readouterr().out.splitlines())
    assert first["message"] == "Item 7 created"
    assert (first["request_id"], first["user_id"], first["item_id"]) == ("req-1", "u-1", 7)
    assert second["merchant_id"] == "m-1"
    assert "ValueError: broken" in third["exception"]


class ServiceConfig(BaseModel):
    """As services write it: aliases are the dotted keys."""

    environment: str = "dev"
    external_port: int = Field(alias="api.external_port")
    database_host: str = Field(alias="database.host")
    greeting: str = Field(alias="catalog.greeting")


def test_the_configuration_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.config import flatten_config, merged_config

    services = tmp_path / "config" / "services"
    services.mkdir(parents=True)
    (tmp_path / "config" / "shared.yml").write_text("api:\n  external_port: 8000\n")
    (services / "catalog-service.yml").write_text(
        "database:\n  host: ${CATALOG_HOST}\ncatalog:\n  greeting: hello\n"
    )
    (tmp_path / "services" / "catalog").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "services" / "catalog")
    monkeypatch.setenv("CATALOG_HOST", "db.internal")
    monkeypatch.setenv("CATALOG_API__EXTERNAL_PORT", "9000")
    found = ServiceConfig(**flatten_config(merged_config("catalog-service", env_prefix="CATALOG")))
    assert found.external_port == 9000
    assert found.database_host == "db.internal"
    assert found.greeting == "hello"
    with pytest.raises(FileNotFoundError):
        merged_config("unknown-service", env_prefix="UNKNOWN")


def test_the_idempotency_examples() -> None:
    from shared.utils.idempotency_key_generator import generate_idempotency_key

    assert generate_idempotency_key("SHOPIFY", "ORDER", "123456") == "SHOPIFY_ORDER_123456"
    assert generate_idempotency_key("STRIPE", "PAYMENT", "pi_abc123") == "STRIPE_PAYMENT_pi_abc123"
    found = generate_idempotency_key("SHOPIFY", "ORDER", "123", "TESTSTORE")
    assert found == "SHOPIFY_ORDER_123_TESTSTORE"
