"""Handlers: what a service does when a message of a contract arrives.

A handler is an async function. What it is given is decided by the annotations of its parameters:

- the contract's payload type: the payload, validated;
- ``UnitOfWork``: the transaction of this message. Its database effect happens once however often
  the message is delivered, because the inbox row commits with it;
- ``Envelope``, ``Context``: the message's envelope and the context bound while it is handled;
- any other type: the object a provider of the service provides.

A handler of batches is given lists instead: ``list[Payload]``, ``list[Envelope]``,
``list[Delivery]``, all in the same order, and one ``UnitOfWork`` for all of them.

A handler that returns acknowledges its message, after its transaction committed. What an error
does is looked up in ``shared.errors.outcome_of``: retry with the policy's delay, or dead letter.
A handler without a ``UnitOfWork`` runs at least once and must bear being repeated.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import GenericAlias
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from shared.context import Context, bind, current
from shared.delivery import Inbox, UnitOfWork, run_unit_of_work
from shared.events import Codec, Contract, Decoded, Envelope
from shared.messaging import BatchPolicy, Delivery, RetryPolicy, Subscription
from shared.service.declaration import DeclarationError
from shared.service.incoming import Reader
from shared.tracing import span

if TYPE_CHECKING:
    from shared.service.providers import Provisions

__all__ = ["Handler", "HandlerRunner"]

_logger = logging.getLogger(__name__)

HandlerFunction = Callable[..., Awaitable[None]]
OrderBy = str | Callable[[Any], object]
UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[UnitOfWork]]


@dataclass(frozen=True, slots=True)
class Handler:
    """One declared handler: the contract it reads, the function, and how it is run."""

    contract: Contract[Any]
    function: HandlerFunction
    name: str
    concurrency: int = 16
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    ack_wait_seconds: float = 30.0
    deadline_seconds: float | None = None
    order_by: OrderBy | None = None
    batch: BatchPolicy | None = None
    double_ack: bool = False
    needs: Mapping[str, type[Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        contract: Contract[Any],
        function: HandlerFunction,
        *,
        name: str | None = None,
        concurrency: int = 16,
        retry: RetryPolicy | None = None,
        ack_wait_seconds: float = 30.0,
        deadline_seconds: float | None = None,
        order_by: OrderBy | None = None,
        batch: BatchPolicy | None = None,
        double_ack: bool = False,
    ) -> Handler:
        """Read a handler from its function.

        Raises:
            DeclarationError: not an async function, a parameter without annotation, a payload
                model that is not the contract's, or options that do not fit it.
        """
        label = getattr(function, "__qualname__", repr(function))
        if not inspect.iscoroutinefunction(function):
            raise DeclarationError(f"handler {label} must be async: async def {label}(...)")
        hints = get_type_hints(function)
        hints.pop("return", None)
        bare = [p for p in inspect.signature(function).parameters if p not in hints]
        if bare:
            raise DeclarationError(f"handler {label}: annotate the parameter {', '.join(bare)}")
        for parameter, kind in hints.items():
            if _is_other_payload(kind, contract):
                raise DeclarationError(
                    f"handler {label}: {parameter} is {kind.__name__}, but {contract.subject} "
                    f"carries {contract.payload.__name__}"
                )
        if not contract.codec.enveloped and {Envelope, _list_of(Envelope)} & {*hints.values()}:
            raise DeclarationError(
                f"handler {label}: messages of {contract.subject} come without an envelope; "
                "take a Delivery for their headers"
            )
        _check_batch(label, contract, set(hints.values()), batch)
        _check_order(label, contract, order_by, batch)
        return cls(
            contract=contract,
            function=function,
            name=name or function.__name__,
            concurrency=concurrency,
            retry=retry or RetryPolicy(),
            ack_wait_seconds=ack_wait_seconds,
            deadline_seconds=deadline_seconds,
            order_by=order_by,
            batch=batch,
            double_ack=double_ack,
            needs=hints,
        )

    @property
    def transactional(self) -> bool:
        """Whether it takes a unit of work, and so happens once."""
        return UnitOfWork in self.needs.values()

    def durable(self, service: str) -> str:
        """Return the name of its durable consumer: stable over restarts and replicas."""
        return self.contract.durable or f"{service}-{re.sub('[^A-Za-z0-9_-]', '_', self.name)}"

    def subscription(
        self,
        service: str,
        handle: Callable[[Delivery], Awaitable[None]],
        *,
        stream: str,
        handle_batch: Callable[[Sequence[Delivery]], Awaitable[None]] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Subscription:
        """Return what a service subscribes with for it.

        Args:
            service: the service's name.
            handle: handles one message.
            stream: the stream that holds the contract's subject.
            handle_batch: handles several; for a handler of batches.
            metadata: what others are to read in the consumer.
        """
        return Subscription(
            subject=self.contract.subject,
            durable=self.durable(service),
            handler=handle,
            stream=stream,
            concurrency=self.concurrency,
            retry=self.retry,
            ack_wait_seconds=self.ack_wait_seconds,
            deadline_seconds=self.deadline_seconds,
            order_by=self.key_of if self.order_by is not None else None,
            batch=self.batch,
            handle_batch=handle_batch if self.batch is not None else None,
            double_ack=self.double_ack,
            metadata=metadata or {},
        )

    def provided_types(self) -> set[type[Any]]:
        """Return the types it needs that do not come with the message."""
        single = {self.contract.payload, Envelope, Delivery}
        lists = {_list_of(kind) for kind in single}
        given = {*(lists if self.batch else single), Context, UnitOfWork}
        return {kind for kind in self.needs.values() if kind not in given}

    def key_of(self, delivery: Delivery) -> str | None:
        """Return the key that orders a delivery's message; None if it has none.

        Raises:
            EnvelopeError: ``order_by`` is a function, and the body is no envelope.
            pydantic.ValidationError: it is one, and the payload does not fit the contract.
            Exception: what it raises.
        """
        if isinstance(self.order_by, str):
            return _field(self.contract.codec, delivery.body, self.order_by.split("."))
        if self.order_by is None:
            return None
        key = self.order_by(self.contract.codec.decode(self.contract, delivery).payload())
        return None if key is None else str(key)


def _list_of(kind: object) -> object:
    return GenericAlias(list, (kind,))


def _field(codec: Codec, body: bytes, path: Sequence[str]) -> str | None:
    """Return a field of the payload as text; what cannot be read has no key and fails later."""
    try:
        value = codec.fields(body)
        for name in path:
            value = value[name]
    except (ValueError, LookupError, TypeError):
        return None
    return None if value is None else str(value)


def _check_batch(
    label: str, contract: Contract[Any], kinds: set[type[Any]], batch: BatchPolicy | None
) -> None:
    """Refuse single messages for a handler of batches, and lists for any other."""
    message: set[object] = {contract.payload, Envelope, Delivery}
    singles = [kind.__name__ for kind in kinds if kind in message]
    lists = [
        f"list[{get_args(kind)[0].__name__}]"
        for kind in kinds
        if get_origin(kind) is list and get_args(kind)[0] in message
    ]
    if batch is not None and singles:
        raise DeclarationError(
            f"handler {label} takes batches: annotate list[{singles[0]}], not {singles[0]}"
        )
    if batch is None and lists:
        raise DeclarationError(
            f"handler {label} takes {lists[0]}: declare it with batch=BatchPolicy(...)"
        )


def _check_order(
    label: str, contract: Contract[Any], order_by: OrderBy | None, batch: BatchPolicy | None
) -> None:
    if order_by is not None and batch is not None:
        raise DeclarationError(
            f"handler {label}: order_by and batch exclude each other; "
            "with order_by, leave batch out"
        )
    if isinstance(order_by, str):
        fields = contract.payload.model_fields
        names = set(fields) | {field.alias for field in fields.values() if field.alias}
        if order_by.split(".")[0] not in names:
            raise DeclarationError(
                f"handler {label}: order_by={order_by!r} is no field of "
                f"{contract.payload.__name__}; it has {', '.join(sorted(fields))}"
            )


def _is_other_payload(kind: type[Any], contract: Contract[Any]) -> bool:
    """Tell whether ``kind`` looks like a payload, but of another contract."""
    return (
        isinstance(kind, type)
        and issubclass(kind, BaseModel)
        and kind not in (Envelope, contract.payload)
        and kind.__name__.endswith("Payload")
    )


class HandlerRunner:
    """Runs one handler for one delivery: decode, bind the context, inbox, call, commit.

    It raises what the handler raises; acknowledging, retrying and dead-lettering are the
    subscriber engine's.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        service: str,
        provisions: Provisions,
        unit_of_work: UnitOfWorkFactory | None,
        transaction_attempts: int = 5,
    ) -> None:
        """Bind the handler to a running service.

        A transaction that PostgreSQL ends for the sake of another (serialization failure, deadlock)
        is tried so often before the delivery counts as failed.

        Raises:
            DeclarationError: it takes a unit of work and the service has no database, or a type
                that nothing provides.
        """
        if handler.transactional and unit_of_work is None:
            raise DeclarationError(
                f"handler {handler.name} takes a UnitOfWork, but database.enabled is false"
            )
        for kind in handler.provided_types():
            if kind not in provisions:
                raise DeclarationError(
                    f"handler {handler.name} needs {getattr(kind, '__name__', kind)}: neither the "
                    f"payload of {handler.contract.subject} ({handler.contract.payload.__name__}) "
                    "nor anything this service provides"
                )
        self._handler = handler
        self._reader = Reader(
            handler.contract, service=service, envelope=Envelope in handler.needs.values()
        )
        # The one parameter of a handler that asks for the payload and nothing else, as most do.
        names = [name for name, kind in handler.needs.items() if kind is handler.contract.payload]
        self._payload_only = names[0] if len(names) == len(handler.needs) == 1 else None
        self._durable = handler.durable(service)
        self._service = service
        self._provisions = provisions
        self._unit_of_work = unit_of_work
        self._transaction_attempts = transaction_attempts

    async def __call__(self, delivery: Delivery) -> None:
        """Handle one delivery; a message whose effect is committed already is passed over.

        Raises:
            EnvelopeError: the body is no envelope.
            pydantic.ValidationError: the payload does not fit the contract.
            Exception: whatever the handler raises; its transaction is rolled back.
        """
        if self._handler.batch is not None:
            await self.batch([delivery])
            return
        handler = self._handler
        incoming = self._reader.read(delivery)
        context = incoming.context
        with (
            bind(context),
            span(
                f"handle {delivery.subject}",
                kind="consumer",
                parent=context.trace,
                subscriber=self._durable,
                event_id=incoming.event_id,
                attempt=delivery.attempt,
            ),
        ):
            payload = self._reader.payload(incoming)
            if self._payload_only is not None:
                await handler.function(**{self._payload_only: payload})
                return
            message: dict[object, object] = {
                handler.contract.payload: payload,
                Envelope: incoming.envelope,
                Context: current(),
                Delivery: delivery,
            }
            if self._unit_of_work is None or not handler.transactional:
                await self._call(message)
                return

            async def handle(uow: UnitOfWork) -> None:
                if await Inbox(uow.session).accept(self._durable, incoming.event_id):
                    await self._call({**message, UnitOfWork: uow})
                else:
                    _logger.info("already handled", extra={"event_id": incoming.event_id})

            await self._run(self._unit_of_work, handle)

    async def batch(self, deliveries: Sequence[Delivery]) -> None:
        """Handle deliveries together; those whose effect is committed already are left out.

        One transaction holds the effect of all, and is rolled back for all. If none is left, the
        handler is not called.

        Raises:
            EnvelopeError, pydantic.ValidationError, Exception: as for one; of any member.
        """
        contract = self._handler.contract
        decoded = [contract.codec.decode(contract, each, envelope=True) for each in deliveries]
        payloads = [each.payload() for each in decoded]
        members = list(zip(payloads, decoded, deliveries, strict=True))
        with (
            bind(Context.start(service=self._service)),
            span(
                f"handle batch {contract.subject}",
                kind="consumer",
                subscriber=self._durable,
                messages=len(members),
                event_ids=[each.event_id for each in decoded],
            ),
        ):
            if self._unit_of_work is None or not self._handler.transactional:
                await self._call(self._lists(members))
                return

            async def handle(uow: UnitOfWork) -> None:
                inbox = Inbox(uow.session)
                fresh = [
                    member
                    for member in members
                    if await inbox.accept(self._durable, member[1].event_id)
                ]
                if fresh:
                    await self._call({**self._lists(fresh), UnitOfWork: uow})

            await self._run(self._unit_of_work, handle)

    def _lists(
        self, members: Sequence[tuple[object, Decoded[Any], Delivery]]
    ) -> dict[object, object]:
        return {
            _list_of(self._handler.contract.payload): [payload for payload, _, _ in members],
            _list_of(Envelope): [decoded.envelope for _, decoded, _ in members],
            _list_of(Delivery): [delivery for _, _, delivery in members],
            Context: current(),
        }

    async def _run(
        self, make: UnitOfWorkFactory, handle: Callable[[UnitOfWork], Awaitable[None]]
    ) -> None:
        await run_unit_of_work(
            make, handle, attempts=self._transaction_attempts, service=self._service
        )

    async def _call(self, message: Mapping[object, object]) -> None:
        await self._handler.function(
            **{
                parameter: message[kind] if kind in message else self._provisions.get(kind)
                for parameter, kind in self._handler.needs.items()
            }
        )
