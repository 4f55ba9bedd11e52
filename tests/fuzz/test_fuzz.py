"""A fuzzer finds no error without its form, no status that is not documented, no 500.

It sends good and bad requests, made from the OpenAPI document, over a socket to a service on real
servers. ``GLAM_FUZZ_EXAMPLES`` and ``GLAM_FUZZ_SEED`` make it longer and other (``make fuzz``).
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from services.credit.service import service as credit_service
from services.notification.service import service as notification_service
from services.webhook.service import service as webhook_service
from shared.config import DatabaseSettings, LoggingSettings, NatsSettings
from shared.logging.levels import undo_changes
from shared.service import Application, Service
from tests.fuzz.shop import service as shop_service

EXAMPLES = int(os.environ.get("GLAM_FUZZ_EXAMPLES", "4"))
SEED = int(os.environ.get("GLAM_FUZZ_SEED", "1"))

SERVICES: list[Service[Any]] = [
    shop_service,
    credit_service,
    notification_service,
    webhook_service,
]
ALIKE = ("health", "operations")
"""The tags of what is the same in every service, and asked of one."""

by_name = pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)


@asynccontextmanager
async def serving(
    service: Service[Any], database: DatabaseSettings, nats: NatsSettings
) -> AsyncIterator[tuple[str, Application[Any]]]:
    settings = service.settings_type(
        database=database, nats=nats, logging=LoggingSettings(level="CRITICAL")
    )
    application = service.assemble(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            application.app, log_config=None, access_log=False, proxy_headers=False
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
            assert not task.done()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", application
        finally:
            server.should_exit = True
            await task
            undo_changes()


@by_name
async def test_no_request_gets_past_the_contract(
    service: Service[Any],
    database_settings: DatabaseSettings,
    nats_settings: NatsSettings,
) -> None:
    from tests.fuzz.fuzzer import fuzz  # seconds of import, for the one process that needs it

    async with serving(service, database_settings, nats_settings) as (url, application):
        findings = await asyncio.to_thread(
            fuzz,
            f"{url}/api/v1/openapi.json",
            examples=EXAMPLES,
            seed=SEED,
            without=() if service is shop_service else ALIKE,
        )
    documented = {
        f"{method.upper()} {path}"
        for path, operations in application.app.openapi()["paths"].items()
        for method, operation in operations.items()
        if service is shop_service or not {*ALIKE} & {*operation["tags"]}
    }
    assert not findings.failures, "\n\n".join(findings.failures)
    assert documented <= findings.operations


@by_name
def test_the_document_is_openapi(service: Service[Any]) -> None:
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

    document = service.assemble(service.settings_type()).app.openapi()
    assert document["openapi"].startswith("3.1")
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(document)] == []
