"""The declaration of a service: its settings, routes, handlers and providers.

A ``Service`` is what a module says about itself. It reads nothing and starts nothing when it is
made; ``assemble`` (or running it) makes the ``Application`` that does the work.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic

from fastapi import APIRouter
from typing_extensions import TypeVar

from shared.config import ServiceSettings, explain, load_settings
from shared.service.application import Application
from shared.service.declaration import DeclarationError
from shared.service.handlers import Handler, HandlerFunction, OrderBy
from shared.service.providers import Provider

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from shared.events import Contract
    from shared.messaging import BatchPolicy, Middleware, PublishMiddleware, RetryPolicy

__all__ = ["Service"]

S = TypeVar("S", bound=ServiceSettings, default=ServiceSettings)
F = TypeVar("F", bound=HandlerFunction)
P = TypeVar("P", bound=Callable[..., AsyncIterator[Any]])

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Service(Generic[S]):
    """A service, declared.

    It is an ASGI application itself, so any ASGI server runs it (``uvicorn module:service``), and
    ``service.run()`` runs it with uvicorn and a drain on SIGTERM.

    Args:
        name: kebab case, as the platform knows it: ``credit-service``. It names the configuration
            file, the environment prefix (``CREDIT``), the database schema (``credit``), the durable
            consumers and the ``source_service`` of its events.
        settings: its settings class; loaded when the service is assembled.
        publishes: the contracts it may put into its outbox. Anything else is refused there.
        migrations: package (or folder) of its Alembic revisions, run on start under a lock. The
            default creates only the outbox and inbox.
        schema: PostgreSQL schema; by default the name without ``-service``, ``-`` as ``_``.
        version: told in OpenAPI and in the metadata of its events.
        middleware: steps around every handler, each ``async def step(delivery, call_next)``, the
            first outermost; they see the message before it is read, so that one may decrypt it. A
            batch is one call, with a ``Batch``. The list may be added to until it is assembled.
        publish_middleware: steps around everything it publishes, each ``async def step(message,
            call_next)``; what is in the outbox goes through them when the relay sends it.

    Raises:
        DeclarationError: the name is not kebab case.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: type[S] = ServiceSettings,  # type: ignore[assignment]
        publishes: Collection[Contract[Any]] = (),
        migrations: str | Path = "shared.delivery.migrations",
        schema: str | None = None,
        version: str = "1.0.0",
        description: str = "",
        middleware: Sequence[Middleware] = (),
        publish_middleware: Sequence[PublishMiddleware] = (),
    ) -> None:
        if not _NAME.fullmatch(name):
            raise DeclarationError(
                f"service name {name!r}: lower case words joined by '-', like credit-service"
            )
        self.name = name
        self.settings_type = settings
        self.publishes = tuple(publishes)
        self.migrations = migrations
        self.schema = schema or name.removesuffix("-service").replace("-", "_")
        self.version = version
        self.description = description
        self.router = APIRouter()
        self.middleware = list(middleware)
        self.publish_middleware = list(publish_middleware)
        self.handlers: list[Handler] = []
        self.providers: list[Provider] = []

    def handles(
        self,
        contract: Contract[Any],
        *,
        name: str | None = None,
        concurrency: int = 16,
        retry: RetryPolicy | None = None,
        ack_wait_seconds: float = 30.0,
        deadline_seconds: float | None = None,
        order_by: OrderBy | None = None,
        batch: BatchPolicy | None = None,
        double_ack: bool = False,
        middleware: Sequence[Middleware] = (),
    ) -> Callable[[F], F]:
        """Declare the decorated function as the handler of ``contract``.

        A plain ``def`` runs in a thread, one for each message handled at a time, and may block. It
        cannot be cancelled, so it takes no ``deadline_seconds``, and it takes no ``UnitOfWork``,
        which belongs to the event loop.

        Args:
            contract: what it handles; see ``shared.service.handlers`` for what it may be given.
            name: of its durable consumer; the function's name by default. Renaming a handler
                makes a new consumer, which starts at the beginning of the stream: keep the name.
            concurrency: deliveries handled at once in one replica.
            retry: attempts and delays; ``RetryPolicy()`` by default.
            ack_wait_seconds: how long the server waits for a heartbeat before it gives the
                message to another replica: the delay after a crash, no bound on the handler, for
                whom heartbeats are sent, also while it blocks the event loop.
            deadline_seconds: one attempt may take this long; then it is cancelled and retried.
            order_by: a field of the payload (``merchant_id``, ``order.customer``), or a function
                of the payload that returns the key. Messages of one key are handled one at a time
                and in order, over retries and replicas; of all replicas, one works at a time.
                Messages whose key is null or missing have no order.
            batch: give the handler lists of so many messages; ``concurrency`` counts batches then.
                If a batch fails, its messages are given one by one, in lists of one.
            double_ack: count a message as handled only once the server has confirmed its
                acknowledgement. Worth its round trip where an effect cannot bear being repeated
                and has no transaction to be in.
            middleware: steps around this handler, inside of the service's: they run in the
                message's context and span, with ``delivery.payload`` read, before its transaction.

        Raises:
            DeclarationError: the function cannot be a handler, the name is taken, or options
                exclude each other.
        """

        def declare(function: F) -> F:
            handler = Handler.of(
                contract,
                function,
                name=name,
                concurrency=concurrency,
                retry=retry,
                ack_wait_seconds=ack_wait_seconds,
                deadline_seconds=deadline_seconds,
                order_by=order_by,
                batch=batch,
                double_ack=double_ack,
                middleware=middleware,
            )
            if any(other.name == handler.name for other in self.handlers):
                raise DeclarationError(
                    f"{self.name} has a handler {handler.name} already; give this one another name="
                )
            self.handlers.append(handler)
            return function

        return declare

    def provides(self, factory: P) -> P:
        """Declare the decorated async generator as the provider of what it yields.

        Raises:
            DeclarationError: no async generator, or an annotation is missing.
        """
        self.providers.append(Provider.of(factory))
        return factory

    def load_settings(self) -> S:
        """Read the settings from files and environment.

        Raises:
            ConfigError: names every mistake found.
        """
        return load_settings(self.settings_type, self.name)

    def assemble(self, settings: S | None = None) -> Application[S]:
        """Make the application that runs this service; each call makes an independent one.

        Raises:
            ConfigError: no settings given and those found are wrong.
        """
        if settings is not None:
            return Application(self, settings)
        return Application(
            self,
            self.load_settings(),
            configuration=explain(self.settings_type, self.name),
        )

    @cached_property
    def application(self) -> Application[S]:
        """The application of this process, assembled on first use."""
        return self.assemble()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ASGI."""
        await self.application.asgi(scope, receive, send)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends it at once."""
        from shared.service.server import serve  # noqa: PLC0415 - the server is needed only here

        serve(self.application)
