"""What a service says about itself: its settings, contracts, streams, handlers and providers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Generic

from fastapi import APIRouter
from typing_extensions import TypeVar

from shared.config import ServiceSettings
from shared.events import Contract, StreamDefinition, StreamError, StreamTable
from shared.messaging.steps import check_steps
from shared.service.errors import DeclarationError
from shared.service.handlers import Handler, HandlerFunction, OrderBy
from shared.service.providers import Provider

if TYPE_CHECKING:
    from pathlib import Path

    from shared.config import NatsSettings
    from shared.messaging import BatchPolicy, Middleware, PublishMiddleware, RetryPolicy


S = TypeVar("S", bound=ServiceSettings, default=ServiceSettings)
F = TypeVar("F", bound=HandlerFunction)
P = TypeVar("P", bound=Callable[..., AsyncIterator[Any]])

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Declared(Generic[S]):
    """A service's declaration; `Service` can be run besides, and says what the arguments are."""

    def __init__(
        self,
        name: str,
        *,
        settings: type[S] = ServiceSettings,  # type: ignore[assignment]
        publishes: Collection[Contract[Any]] = (),
        streams: StreamTable | Collection[StreamDefinition] = (),
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
        _check_middleware(name, middleware, publish_middleware)
        _check_contracts(name, publishes)
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
        try:
            self._defined = StreamTable(streams)
        except StreamError as error:
            raise DeclarationError(f"{name}: {error}") from error
        self._check_streams()

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

        >>> booked: list[str] = []
        >>> @service.handles(PAID, order_by="number")
        ... async def book(paid: Paid, uow: UnitOfWork) -> None:
        ...     booked.append(paid.number)
        >>> async with service.assemble(settings) as application:
        ...     async with application.unit_of_work() as uow:
        ...         sent = uow.outbox.add(PAID, Paid(number="7"))
        ...     await eventually(lambda: booked)
        ['7']

        Args:
            contract: what it handles; see ``shared.service.handlers`` for what it may be given.
            name: of its durable consumer; the function's name by default. Renaming a handler
                makes a new consumer, which starts at the beginning of the stream: keep the name.
            concurrency: deliveries handled at once in one replica.
            retry: attempts and delays; ``RetryPolicy()`` by default.
            ack_wait_seconds: how long the server waits for a heartbeat before it gives the message
                to another replica: the delay after a crash, no bound on the handler, for whom
                heartbeats are sent, also while it blocks the event loop.
            deadline_seconds: one attempt may take this long; then it is cancelled and retried.
            order_by: a field of the payload (``merchant_id``, ``order.customer``), or a function
                of the payload that returns the key. Messages of one key are handled one at a time
                and in order, over retries and replicas; of all replicas, one works at a time.
                Messages whose key is null or missing have no order.
            batch: give the handler lists of so many messages; ``concurrency`` counts batches then.
                If a batch fails, its messages are given one by one, in lists of one.
            double_ack: count a message as handled only once the server has confirmed its
                acknowledgement. Worth its round trip where an effect must not be repeated
                and has no transaction to be in.
            middleware: steps around this handler, inside of the service's: they run in the
                message's context and span, with ``delivery.payload`` read, before its transaction.

        Raises:
            DeclarationError: the function cannot be a handler, a middleware not a step, the name
                or the durable consumer is taken, options exclude each other, or the contract's
                stream contradicts another.
        """
        if not isinstance(contract, Contract):
            raise DeclarationError(
                f"{self.name} cannot handle {contract!r}, which is not a Contract: "
                "@service.handles(Contract('evt.invoice.paid', Paid))"
            )
        _check_middleware(self.name, middleware)

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
            durable = handler.durable(self.name)
            if any(other.durable(self.name) == durable for other in self.handlers):
                raise DeclarationError(
                    f"{self.name} has a handler of the durable consumer {durable} already"
                )
            self._check_streams(contract)
            self.handlers.append(handler)
            return function

        return declare

    def provides(self, factory: P) -> P:
        """Declare the decorated async generator as the provider of what it yields.

        It is entered once when the service starts, after the providers of what its parameters ask
        for, and left when the service stops. A type has one provider.

        >>> service = Service("till-service")
        >>> @service.provides
        ... async def mailer(settings: ServiceSettings) -> AsyncIterator[Mailer]:
        ...     async with Mailer(sender=f"billing@{settings.environment}.example") as mailer:
        ...         yield mailer
        >>> async with service.assemble(settings) as application:
        ...     application.provisions.get(Mailer).sender
        'billing@dev.example'

        Raises:
            DeclarationError: no async generator, or an annotation is missing.
        """
        self.providers.append(Provider.of(factory))
        return factory

    @property
    def contracts(self) -> tuple[Contract[Any], ...]:
        """What it publishes and handles, each once."""
        handled = (handler.contract for handler in self.handlers)
        return tuple(dict.fromkeys([*self.publishes, *handled]))

    @property
    def streams(self) -> StreamTable:
        """The streams it was given, and those that its contracts name by themselves."""
        return self._defined.including(self.contracts)

    def streams_with(self, settings: NatsSettings) -> StreamTable:
        """Return its streams as the settings have them.

        Raises:
            DeclarationError: they contradict each other, or there is none for a contract.
        """
        try:
            table = self.streams.adjusted(
                {
                    name: stream.model_dump(exclude_unset=True)
                    for name, stream in settings.streams.items()
                }
            )
            used = dict.fromkeys(table.holding(contract.subject) for contract in self.contracts)
            StreamTable([*table, *used])  # two by convention may have one name
        except StreamError as error:
            raise DeclarationError(f"{self.name}: {error}") from error
        return table

    def check_middleware(self) -> None:
        """Look at its middleware again, which may be added to until it is assembled.

        Raises:
            DeclarationError: one is not an async function of two arguments.
        """
        _check_middleware(self.name, self.middleware, self.publish_middleware)

    def _check_streams(self, *more: Contract[Any]) -> None:
        try:
            self._defined.including([*self.contracts, *more])
        except StreamError as error:
            raise DeclarationError(f"{self.name}: {error}") from error


def _check_contracts(name: str, publishes: Collection[object]) -> None:
    if isinstance(publishes, Contract):
        raise DeclarationError(f"{name}: publishes is one Contract: it must be a list, [...]")
    for contract in publishes:
        if not isinstance(contract, Contract):
            raise DeclarationError(
                f"{name} cannot publish {contract!r}, which is not a Contract: "
                "publishes=[Contract('evt.invoice.paid', Paid)]"
            )
        if not contract.is_literal:
            raise DeclarationError(
                f"{name} cannot publish {contract.subject}: it is a filter, and a message has one "
                "subject: name each, like "
                f"{contract.subject.replace('*', 'paid').replace('>', 'paid')}"
            )


def _check_middleware(
    name: str,
    middleware: Sequence[Middleware],
    publish_middleware: Sequence[PublishMiddleware] = (),
) -> None:
    try:
        check_steps(middleware, "delivery")
        check_steps(publish_middleware, "message")
    except TypeError as error:
        raise DeclarationError(f"{name}: {error}") from error
