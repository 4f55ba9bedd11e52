"""One running service: everything its declaration needs, entered in order and left in reverse.

Order of start: logging, message bus, database, migrations, streams, relay, providers, subscribers.
Nothing is left half started: what is up is closed again when a later step fails.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Generic

from fastapi import FastAPI
from typing_extensions import TypeVar

from shared.api import (
    Probe,
    create_health_router,
    create_operations_router,
    install_edge,
    install_exception_handlers,
    install_rate_limits,
    install_service_identity,
)
from shared.config import ServiceSettings
from shared.contracts import Reader
from shared.database import Database, RowSecurity, migrate
from shared.database.engine.instrumentation import trace_statements
from shared.delivery import Relay, UnitOfWork, UnitOfWorkFactory, check_inbox_retention
from shared.logging import configure_logging
from shared.messaging import Bus, DeadLetters, StreamStore, Subscriber
from shared.messaging.streams.ensure import check_holder
from shared.metrics import record_build
from shared.service.dead_letter_depth import watch_dead_letters
from shared.service.providers import Provisions
from shared.service.routes.dead_letters import create_dead_letters_router
from shared.service.routes.subscribers import create_subscribers_router
from shared.service.runner import HandlerRunner
from shared.service.workers import Workers
from shared.tracing import configure_tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

    from starlette.types import Receive, Scope, Send

    from shared.config import Setting
    from shared.events import StreamDefinition
    from shared.service.declaration import Declared
    from shared.service.handlers import Handler


S = TypeVar("S", bound=ServiceSettings, default=ServiceSettings)
T = TypeVar("T")

_logger = logging.getLogger(__name__)


class Application(Generic[S]):
    """A service with its settings, ready to start.

    Enter it (``async with``) or serve its ``app``, whose lifespan enters it. Once left it cannot
    be entered again; assemble a new one.

    Raises:
        DeclarationError: the streams contradict each other, or there is none for a contract, or a
            middleware is not an async function.

    Attributes:
        app: the FastAPI application.
        settings: the settings it was assembled with.
        streams: the streams of the service, as the settings have them.
        configuration: where they come from, for ``/info``.
        draining: true from the first request to stop; readiness answers 503 from then on.
    """

    def __init__(
        self, service: Declared[S], settings: S, *, configuration: Sequence[Setting] = ()
    ) -> None:
        service.check_middleware()
        self.service = service
        self.streams = service.streams_with(settings.nats)
        self.settings = settings
        self.configuration = configuration
        self.draining = False
        self.started = False
        self._database: Database | None = None
        self._bus: Bus | None = None
        self._row_security: RowSecurity | None = None
        self._relay: Relay | None = None
        self._subscribers: list[Subscriber] = []
        self._provisions = Provisions()
        self._workers = Workers()
        self._stack = AsyncExitStack()
        self.app = self._build_app()

    # -- what it offers ----------------------------------------------------------------------

    @property
    def database(self) -> Database:
        """The database.

        Raises:
            RuntimeError: not started, or ``database.enabled`` is false.
        """
        return _present(self._database, "database")

    @property
    def bus(self) -> Bus:
        """The message bus.

        Raises:
            RuntimeError: not started.
        """
        return _present(self._bus, "message bus")

    @property
    def provisions(self) -> Provisions:
        """The provided objects, by type."""
        return self._provisions

    def unit_of_work(self) -> UnitOfWork:
        """Make a unit of work whose outbox takes what the service publishes.

        Raises:
            LookupError: not started, or ``database.enabled`` is false.
        """
        return self._provisions.get(UnitOfWorkFactory)()

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        await self.app(scope, receive, send)

    # -- life --------------------------------------------------------------------------------

    async def __aenter__(self) -> Application[S]:
        if self.started:
            raise RuntimeError(f"{self.service.name} was started already; assemble a new one")
        self.started = True
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        _logger.info("ready", extra={"handlers": [h.name for h in self.service.handlers]})
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.draining = True
        await self._stack.__aexit__(kind, error, trace)

    async def drain(self) -> None:
        """Graceful shutdown: stop fetching, finish what is handled, publish what is committed.

        Bounded by ``drain_seconds``; what is not finished then is cancelled and handed back to
        the server. HTTP is still answered, with readiness at 503. A second call waits for nothing
        more.
        """
        self.draining = True
        grace = self.settings.drain_seconds
        await asyncio.gather(*(subscriber.drain(grace) for subscriber in self._subscribers))
        if self._relay is not None:
            await self._relay.drain()

    async def _start(self, stack: AsyncExitStack) -> None:
        service, settings = self.service, self.settings
        configure_logging(settings.logging, service=service.name, environment=settings.environment)
        logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # the edge tells of requests
        stack.push_async_callback(
            configure_tracing(
                settings.tracing,
                service=service.name,
                version=service.version,
                environment=settings.environment,
            )
        )
        record_build(service.name, service_version=service.version)
        self._provisions.add(service.settings_type, settings)
        self._bus = await stack.enter_async_context(Bus(settings.nats, name=service.name))
        self._bus.publisher = self._bus.publisher.with_middleware(*service.publish_middleware)
        if settings.database.enabled:
            self._database = await stack.enter_async_context(
                Database(
                    settings.database,
                    schema=settings.database.schema_name or service.schema,
                    application_name=service.name,
                )
            )
            await migrate(self._database, migrations=service.migrations)
            await self._check_row_security(self._database)
            if settings.tracing.endpoint or settings.tracing.database:
                trace_statements(self._database, logged=settings.tracing.database)
            self._provisions.add(Database, self._database)
        self._provisions.add(Bus, self._bus)
        self._provisions.add(DeadLetters, DeadLetters(self._bus, contracts=service.contracts))
        await self._ensure_streams(self._bus)
        await self._check_inbox()
        await stack.enter_async_context(self._workers)
        if self._database is not None:
            self._relay = Relay(
                self._database,
                self._bus.publisher,
                service=service.name,
                settings=settings.delivery,
                bus=self._bus,
                external=[stream.name for stream in self.streams if stream.external],
            )
            self._provisions.add(
                UnitOfWorkFactory,
                UnitOfWorkFactory(
                    self._database,
                    service=service.name,
                    publishes=service.publishes,
                    on_commit=self._relay.wake,
                    notify=settings.delivery.notify,
                ),
            )
            stack.push_async_callback(self._relay.drain)
            self._workers.start("outbox relay", self._relay.run())
        await self._provisions.enter(service.providers, stack)
        self._subscribers = [self._subscriber(handler) for handler in service.handlers]
        stack.push_async_callback(self.drain)
        for subscriber in self._subscribers:
            self._workers.start(subscriber.subscription.durable, subscriber.run())
        if self._subscribers:
            reading = [s.subscription for s in self._subscribers]
            self._workers.start(
                "dead letters",
                watch_dead_letters(
                    self._provisions.get(DeadLetters),
                    service=service.name,
                    subscribers=[(each.stream or "", each.durable) for each in reading],
                ),
            )

    async def _ensure_streams(self, bus: Bus) -> None:
        """Create the streams that are the service's, and see how it stands with the others."""
        used: dict[StreamDefinition, list[str]] = {}
        for contract in self.service.contracts:
            stream = self.streams.holding(contract.subject)
            used.setdefault(stream, []).append(contract.subject)
        for stream, subjects in used.items():
            if self._owns(stream):
                await bus.ensure_stream(stream)
            elif not await check_holder(bus, stream.name, subjects):
                _logger.warning(
                    "stream %s is not there yet; %s waits for it with %s, until %s creates it",
                    stream.name,
                    self.service.name,
                    ", ".join(subjects),
                    "who looks after it"
                    if stream.external
                    else "who publishes its events or handles its commands",
                    extra={"stream": stream.name, "subjects": subjects},
                )

    def _owns(self, stream: StreamDefinition) -> bool:
        """Tell whether the service is to create it: it was given it, or speaks for its domain."""
        if stream.external:
            return False
        told = self.settings.nats.streams.get(stream.name)  # what limits it makes nobody its owner
        if stream.name in self.service.streams or (told is not None and told.subjects):
            return True
        events = [each for each in self.service.publishes if not each.is_command]
        commands = [h.contract for h in self.service.handlers if h.contract.is_command]
        return any(self.streams.holding(each.subject) == stream for each in (*events, *commands))

    async def _check_inbox(self) -> None:
        """Refuse to start with an inbox that forgets what its streams still remember."""
        once = [h.contract.subject for h in self.service.handlers if h.transactional]
        for stream in {self.streams.holding(subject).name for subject in once}:
            stored = await StreamStore(self.bus).stream(stream)
            check_inbox_retention(
                self.settings.delivery,
                service=self.service.name,
                stream=stream,
                max_age_seconds=stored.max_age_seconds if stored is not None else 0.0,
            )

    async def _check_row_security(self, database: Database) -> None:
        security = await database.row_security()
        if security.broken:
            _logger.error(
                "tenants are not kept apart: the role passes by row-level security. Let the "
                "service log in as a role without SUPERUSER and BYPASSRLS",
                extra={"role": security.role, "tables": security.tables},
            )
        self._row_security = security

    def _subscriber(self, handler: Handler) -> Subscriber:
        runner = HandlerRunner(
            handler,
            service=self.service.name,
            provisions=self._provisions,
            unit_of_work=(
                self._provisions.get(UnitOfWorkFactory) if self._database is not None else None
            ),
            transaction_attempts=self.settings.database.transaction_attempts,
        )
        durable = handler.durable(self.service.name)
        reader = Reader.of(handler.contract, service=self.service.name, durable=durable)
        subscription = handler.subscription(
            self.service.name,
            runner,
            stream=self.streams.holding(handler.contract.subject).name,
            handle_batch=runner.batch,
            middleware=self.service.middleware,
            metadata=reader.metadata(),
        )
        return Subscriber(
            self.bus, subscription, service=self.service.name, version=self.service.version
        )

    # -- HTTP --------------------------------------------------------------------------------

    def _build_app(self) -> FastAPI:
        service, api = self.service, self.settings.api
        app = FastAPI(
            title=service.name,
            version=service.version,
            description=service.description,
            debug=False,
            telemetry={"tracing": self.settings.tracing.endpoint is None},  # else spans come twice
            lifespan=self._lifespan,
            openapi_url=f"{api.prefix}/openapi.json",
            docs_url=f"{api.prefix}/docs",
            redoc_url=None,
        )
        app.state.application = self
        health = create_health_router(
            service.name, probes=self._probes(), draining=lambda: self.draining
        )
        app.include_router(health, prefix=api.prefix)
        app.include_router(health, include_in_schema=False)  # for orchestrators: no version
        operations = create_operations_router(
            self.settings,
            service=service.name,
            version=service.version,
            configuration=self.configuration,
            routers={
                "subscribers": create_subscribers_router(lambda: self._subscribers),
                "dead_letters": create_dead_letters_router(
                    lambda: self._provisions.get(DeadLetters)
                ),
            },
        )
        app.include_router(operations, prefix=api.prefix)
        app.include_router(service.router, prefix=api.prefix)
        install_exception_handlers(app)
        install_service_identity(app, self.settings.service_auth, service=service.name)
        install_rate_limits(app, self.settings, service=service.name)
        install_edge(app, api, service=service.name)
        return app

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        del app
        async with self:
            yield

    def _probes(self) -> list[Probe]:
        async def subscribers() -> object:
            dead = [s.subscription.durable for s in self._subscribers if not s.alive]
            if dead:
                raise RuntimeError(f"not running: {', '.join(dead)}")
            return {s.subscription.durable: s.status for s in self._subscribers}

        async def workers() -> str:
            return self._workers.check()

        async def message_bus() -> object:
            return await self.bus.ping()

        async def database() -> object:
            await self.database.ping()
            detail: dict[str, object] = {}
            if self._row_security is not None and self._row_security.broken:
                detail["row_security"] = f"bypassed by the role {self._row_security.role}"
            if self.settings.database.replicas:
                detail["replicas"] = await self.database.replicas()
            return detail or None

        async def outbox() -> object:
            return await _present(self._relay, "relay").backlog()

        probes = [
            Probe("workers", workers),
            Probe("message_bus", message_bus),
            Probe("subscribers", subscribers),
        ]
        if self.settings.database.enabled:
            probes += [Probe("database", database), Probe("outbox", outbox)]
        return probes


def _present(part: T | None, name: str) -> T:
    if part is None:
        raise RuntimeError(f"no {name}: the service is not started, or it is switched off")
    return part
