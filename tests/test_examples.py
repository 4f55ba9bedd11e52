"""The examples in docstrings run, and answer what they show.

A name whose docstring has an example is added to `NAMES` by one line; so is that of a constant with
a string below it, as the module that defines it names it. What an example may use without importing
it: the public names of the package it stands in, and what the fixture of that package provides
(`PROVIDED`). ``await`` stands where it does in an ``async def``.
"""

from __future__ import annotations

import ast
import doctest
import io
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from inspect import cleandoc, getsource, iscoroutine
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import httpx
import nats
import pytest
from fastapi import APIRouter, Depends, FastAPI
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field, SecretStr
from sqlalchemy import MetaData, String
from sqlalchemy.orm import Mapped, mapped_column, registry

from shared import database as data_room
from shared.api import (
    ApiResponse,
    install_edge,
    install_exception_handlers,
    install_rate_limits,
    install_service_identity,
    success_response,
)
from shared.config import (
    ApiSettings,
    DatabaseSettings,
    HttpClientSettings,
    LoggingSettings,
    NatsSettings,
    ServiceAuthSettings,
    load_settings,
)
from shared.context import current
from shared.context.identifiers import uuid7
from shared.database import Database, Repository, migrate
from shared.delivery import UnitOfWork, UnitOfWorkFactory
from shared.errors import ConflictError, DatabaseError, NotFoundError, outcome_of
from shared.events import CONVENTION, Contract, Envelope, StreamDefinition
from shared.http import sign_token
from shared.messaging import Bus, Delivery, OutgoingMessage
from shared.service import Service, ServiceSettings
from shared.testing import eventually
from tests.http.conftest import Serve, serve

__all__ = ["serve"]

if TYPE_CHECKING:
    from types import ModuleType

    from _pytest.mark.structures import ParameterSet

NAMES = (
    "shared.api.RateLimit",
    "shared.api.dependencies.PaginationDep",
    "shared.api.only_operators",
    "shared.api.only_services",
    "shared.api.paginated_response",
    "shared.api.raises",
    "shared.api.success_response",
    "shared.config.ConfigError",
    "shared.config.load_settings",
    "shared.context.Context",
    "shared.context.bind",
    "shared.context.current",
    "shared.context.deadline.Deadline",
    "shared.database.Base",
    "shared.database.Database",
    "shared.database.Database.transaction",
    "shared.database.HistoryMixin",
    "shared.database.JsonModel",
    "shared.database.KeysetPage",
    "shared.database.MerchantMixin",
    "shared.database.Money",
    "shared.database.Repository",
    "shared.database.Repository.claim",
    "shared.database.Repository.find_all",
    "shared.database.Repository.get",
    "shared.database.Repository.page_by_key",
    "shared.database.Repository.save",
    "shared.database.Repository.update_many",
    "shared.database.Repository.upsert_many",
    "shared.database.SoftDeleteMixin",
    "shared.database.VersionedMixin",
    "shared.database.detached",
    "shared.database.migrate",
    "shared.database.money_column",
    "shared.database.tenant_scope",
    "shared.database.where",
    "shared.delivery.IdempotencyKeys",
    "shared.delivery.Inbox",
    "shared.delivery.Outbox.add",
    "shared.delivery.UnitOfWork",
    "shared.delivery.UnitOfWork.savepoint",
    "shared.delivery.UnitOfWorkFactory",
    "shared.delivery.UnitOfWorkFactory.run",
    "shared.dev.NatsServer",
    "shared.dev.PostgresServer",
    "shared.errors.ConflictError",
    "shared.errors.GlamBaseError",
    "shared.errors.NotFoundError",
    "shared.errors.ValidationError",
    "shared.errors.outcome_of",
    "shared.errors.wrap_external_error",
    "shared.events.Contract",
    "shared.events.Contract.upcasts",
    "shared.events.Envelope",
    "shared.events.StreamDefinition",
    "shared.events.StreamTable",
    "shared.http.ServiceClient",
    "shared.idempotency.idempotency_key",
    "shared.logging.configure_logging",
    "shared.logging.create_logger",
    "shared.messaging.BatchPolicy",
    "shared.messaging.Bus",
    "shared.messaging.DeadLetterFilter",
    "shared.messaging.DeadLetters",
    "shared.messaging.Delivery",
    "shared.messaging.OutgoingMessage",
    "shared.messaging.Publisher.publish",
    "shared.messaging.RetryPolicy",
    "shared.messaging.consuming.pipeline.Middleware",
    "shared.resilience.CircuitBreaker",
    "shared.resilience.backoff_seconds",
    "shared.service.IdempotentRoute",
    "shared.service.Provided",
    "shared.service.Service",
    "shared.service.Service.handles",
    "shared.service.Service.provides",
    "shared.service.ServiceSettings",
    "shared.service.dependencies.UnitOfWorkDep",
    "shared.testing.History",
    "shared.testing.eventually",
    "shared.tracing.span",
)

PROVIDED = {
    "shared.api": "web",
    "shared.config": "folder",
    "shared.database": "shop",
    "shared.delivery": "shop",
    "shared.events": "spoken",
    "shared.http": "called",
    "shared.logging": "folder",
    "shared.messaging": "bus",
    "shared.service": "till",
    "shared.testing": "folder",
}
"""The fixture that provides the names of a package's examples; of others, ``nothing``."""

SERVERS = ("shared.database", "shared.delivery", "shared.dev", "shared.messaging", "shared.service")
"""The packages whose examples need a NATS or a PostgreSQL server."""

USUAL: dict[str, Any] = {
    **{name: getattr(data_room, name) for name in data_room.__all__},
    "__name__": __name__,
    "Annotated": Annotated,
    "Any": Any,
    "AsyncIterator": AsyncIterator,
    "BaseModel": BaseModel,
    "ConflictError": ConflictError,
    "DatabaseError": DatabaseError,
    "Depends": Depends,
    "Field": Field,
    "Mapped": Mapped,
    "NotFoundError": NotFoundError,
    "Path": Path,
    "String": String,
    "UTC": UTC,
    "UnitOfWork": UnitOfWork,
    "current": current,
    "datetime": datetime,
    "eventually": eventually,
    "load_settings": load_settings,
    "logging": logging,
    "mapped_column": mapped_column,
    "nats": nats,
    "outcome_of": outcome_of,
    "uuid7": uuid7,
}
"""What the files that such code stands in import."""


class Paid(BaseModel):
    number: str


class PaidIn(Paid):
    currency: str


class Account(BaseModel):
    number: str
    balance: int


PAID = Contract("evt.invoice.paid", Paid)


@dataclass
class Mailer:
    sender: str

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave nothing behind."""


@pytest.fixture
async def shop(database_settings: DatabaseSettings) -> AsyncIterator[dict[str, Any]]:
    """A database with orders, an outbox and an inbox; `units` makes units of work."""

    class Base(data_room.Base):
        __abstract__ = True
        metadata = MetaData(naming_convention=data_room.Base.metadata.naming_convention)
        _sa_registry = registry(metadata=metadata)

    class Order(Base, data_room.UUIDv7Mixin, data_room.VersionedMixin, data_room.SoftDeleteMixin):
        __tablename__ = "orders"
        number: Mapped[str] = mapped_column(String(20), unique=True)
        status: Mapped[str] = mapped_column(String(20), default="new")
        total: Mapped[data_room.Money] = data_room.money_column("total")

    settings = database_settings.model_copy(
        update={"cursor_secret": SecretStr("the secret of the examples")}
    )
    async with Database(settings, schema="shop") as database:
        await migrate(database, migrations="shared.delivery.migrations")
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield {
            "Base": Base,
            "Order": Order,
            "PAID": Contract("evt.order.paid", Paid),
            "Paid": Paid,
            "database": database,
            "orders": Repository(Order, database.session_factory),
            "settings": settings,
            "units": UnitOfWorkFactory(database, service="shop-service"),
        }
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture
def spoken() -> dict[str, Any]:
    """A contract and its payload, and a payload of its next version."""
    return {"PAID": PAID, "Paid": Paid, "PaidIn": PaidIn}


@pytest.fixture
async def bus(nats_settings: NatsSettings, spoken: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """A bus with a stream of one message, and that message as it was delivered."""
    async with Bus(nats_settings, name="till-service") as bus:
        await bus.ensure_stream(CONVENTION.holding(PAID.subject))
        envelope = Envelope.create(PAID, Paid(number="1"), source_service="till-service")
        sent = OutgoingMessage(
            envelope.subject, envelope.encode(), envelope.headers(), envelope.message_id
        )
        ack = await bus.publisher.publish(sent)
        yield spoken | {
            "Envelope": Envelope,
            "Service": Service,
            "StreamDefinition": StreamDefinition,
            "bus": bus,
            "delivery": Delivery(
                *(sent.subject, sent.body, sent.headers, ack.stream, ack.sequence, 1),
                datetime.now(UTC),
            ),
            "service": Service("till-service"),
            "settings": nats_settings,
        }


@pytest.fixture
def till(
    nats_settings: NatsSettings, database_settings: DatabaseSettings, spoken: dict[str, Any]
) -> dict[str, Any]:
    """A service that publishes a contract, and settings to run it with."""
    service = Service("till-service", publishes=[PAID])
    service.provides(mailer)
    settings = ServiceSettings(
        nats=nats_settings, database=database_settings, logging=LoggingSettings(level="ERROR")
    )

    @asynccontextmanager
    async def running(service: Service) -> AsyncIterator[httpx.AsyncClient]:
        async with service.assemble(settings) as application, client_of(application.app) as client:
            yield client

    return spoken | {
        "APIRouter": APIRouter,
        "Contract": Contract,
        "Mailer": Mailer,
        "running": running,
        "service": service,
        "settings": settings,
    }


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://till")


async def mailer() -> AsyncIterator[Mailer]:
    yield Mailer("till@example.com")


@pytest.fixture
def web() -> dict[str, Any]:
    """An application with all that a service puts around one, and a client of it."""
    settings = ServiceSettings(
        api=ApiSettings(operators_token=SecretStr("the token of the operators")),
        service_auth=ServiceAuthSettings(secrets={"2025": SecretStr("the secret of services" * 2)}),
    )
    app = FastAPI()
    install_exception_handlers(app)
    install_rate_limits(app, settings, service="till")
    install_service_identity(app, settings.service_auth, service="till")
    install_edge(app, settings.api, service="till", registry=CollectorRegistry())
    return {"app": app, "client": client_of(app), "settings": settings, "sign_token": sign_token}


@pytest.fixture
async def called(serve: Serve) -> AsyncIterator[dict[str, Any]]:
    """A service that others call, and the settings by which they find it."""
    app = FastAPI()

    @app.get("/accounts/{number}")
    async def read(number: str) -> ApiResponse[Account]:
        if number != "7":
            raise NotFoundError(f"No account {number}")
        return success_response(Account(number=number, balance=12))

    async with serve(app) as address:
        yield {"Account": Account, "settings": HttpClientSettings(services={"credit": address})}


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Any]:
    """An empty folder, and one with a configuration."""
    root = tmp_path / "root"
    (root / "config").mkdir(parents=True)
    (root / "config" / "shared.yml").write_text("environment: dev\n")
    return {"folder": tmp_path, "root": root, "LoggingSettings": LoggingSettings}


@pytest.fixture
def nothing() -> dict[str, Any]:
    """For packages whose examples stand by themselves."""
    return {}


def found(name: str) -> tuple[ModuleType, object]:
    """The package of a name, and what it names there."""
    package, *rest = name.split(".")
    with suppress(ModuleNotFoundError):  # a name in a module that is no package
        while len(rest) > 1 and find_spec(f"{package}.{rest[0]}") is not None:
            package = f"{package}.{rest.pop(0)}"
    module = import_module(package)
    return module, attrgetter(".".join(rest))(module)


@pytest.fixture
def provided(name: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    package = ".".join(name.split(".")[:2])
    names: dict[str, Any] = request.getfixturevalue(PROVIDED.get(package, "nothing"))
    return names


def documentation(name: str) -> str:
    """The docstring of a name; of a constant, the string below it."""
    module, item = found(name)
    constant = name.removeprefix(f"{module.__name__}.")
    body = ast.parse(getsource(module)).body
    for assigned, below in pairwise(body):
        match assigned:
            case ast.Assign(targets=[ast.Name(id=target)]) | ast.AnnAssign(ast.Name(id=target)):
                if target == constant and isinstance(below, ast.Expr):
                    return str(ast.literal_eval(below.value))
    return item.__doc__ or ""


def marked(name: str) -> ParameterSet:
    servers = name.startswith(SERVERS)
    return pytest.param(name, marks=pytest.mark.servers if servers else ())


@pytest.mark.parametrize("name", [marked(name) for name in NAMES])
async def test_the_example_answers_what_it_shows(
    name: str, provided: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _ = found(name)
    examples = doctest.DocTestParser().get_examples(cleandoc(documentation(name)), name)
    assert examples, f"the docstring of {name} has no example"
    names = {one: getattr(module, one) for one in getattr(module, "__all__", vars(module))}
    names |= USUAL | provided
    for example in examples:
        answer = await answered(example.source, name, names, monkeypatch)
        assert doctest.OutputChecker().check_output(example.want, answer, doctest.ELLIPSIS), (
            f"{name}: {example.source}shows {example.want}and answers {answer}"
        )


async def answered(
    source: str, name: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> str:
    """Run one example as the prompt of Python does; return what it prints."""
    printed = io.StringIO()

    def display(value: object) -> None:
        if value is not None:
            printed.write(f"{value!r}\n")

    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, name, "single", flags, dont_inherit=True)
    with redirect_stdout(printed), monkeypatch.context() as patched:
        patched.setattr(sys, "displayhook", display)
        try:
            result = eval(code, names)
            if iscoroutine(result):
                await result
        except Exception as error:  # noqa: BLE001 - an example may show one
            printed.write(f"{type(error).__name__}: {error}\n")
    return printed.getvalue()
