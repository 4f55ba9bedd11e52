"""The inner pipeline of a handler: from the delivery to the call of its function."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from shared.context import Context, current
from shared.delivery import Inbox, UnitOfWork, run_unit_of_work
from shared.events import Envelope, context_from_message
from shared.messaging import Batch, Delivery
from shared.messaging.consuming.pipeline import compose
from shared.service.errors import DeclarationError
from shared.service.handlers import Handler, list_of
from shared.tracing import span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.messaging import CallNext, Middleware
    from shared.service.providers import Provisions


_logger = logging.getLogger(__name__)

UnitOfWorkFactory: TypeAlias = Callable[[], AbstractAsyncContextManager[UnitOfWork]]
_Call: TypeAlias = Callable[..., Awaitable[None]]


class HandlerRunner:
    """Runs one handler: read (decode, context, span), its own middleware, unit of work, call.

    It raises what the handler raises; acknowledging, retrying and dead-lettering are the
    subscriber's. The steps are put together once; those that are not needed are not there.

    A transaction that PostgreSQL ends for the sake of another (serialization failure, deadlock) is
    tried ``transaction_attempts`` times before the delivery counts as failed.

    Raises:
        DeclarationError: the handler takes a unit of work and the service has no database, or a
            type that nothing provides.
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
        if handler.transactional:
            if unit_of_work is None:
                raise DeclarationError(
                    f"handler {handler.name} takes a UnitOfWork, but database.enabled is false"
                )
            self._transact = partial(
                run_unit_of_work, unit_of_work, attempts=transaction_attempts, service=service
            )
        for kind in handler.provided_types():
            if kind not in provisions:
                raise DeclarationError(
                    f"handler {handler.name} needs {getattr(kind, '__name__', kind)}: neither the "
                    f"payload of {handler.contract.subject} ({handler.contract.payload.__name__}) "
                    "nor anything this service provides"
                )
        self._handler = handler
        self._contract = handler.contract
        self._durable = handler.durable(service)
        self._service = service
        self._provided = {kind: provisions.get(kind) for kind in handler.provided_types()}
        self._reads_envelope = not {Envelope, list_of(Envelope)}.isdisjoint(handler.needs.values())
        self._function: _Call = handler.function
        if handler.blocking:
            self._threads = ThreadPoolExecutor(handler.concurrency, self._durable)
            self._function = self._in_thread
        # The one parameter of a handler that asks for the payload and nothing else, as most do.
        names = [name for name, kind in handler.needs.items() if kind is self._contract.payload]
        self._payload_only = names[0] if len(names) == len(handler.needs) == 1 else ""
        self._handle = self._composed(handler)

    def _composed(self, handler: Handler) -> CallNext:
        """Put the steps together; those that the handler does not need are not there."""
        in_batches = handler.batch is not None
        steps: list[Middleware] = [self._read_batch if in_batches else self._read]
        steps += handler.middleware
        if handler.transactional:
            steps.append(self._commit_batch if in_batches else self._commit)
        if in_batches:
            return compose(steps, self._call_with_lists)
        return compose(steps, self._call_with_payload if self._payload_only else self._call)

    def __call__(self, delivery: Delivery) -> Awaitable[None]:
        """Handle one delivery; a message whose effect is committed already is passed over.

        Raises:
            EnvelopeError: the body is not an envelope.
            pydantic.ValidationError: the payload does not fit the contract.
            Exception: whatever the handler raises; its transaction is rolled back.
        """
        return self._handle(delivery)

    async def batch(self, deliveries: Sequence[Delivery]) -> None:
        """Handle deliveries together; those whose effect is committed already are left out.

        One transaction holds the effect of all, and is rolled back for all. If none is left, the
        handler is not called.

        Raises:
            EnvelopeError, pydantic.ValidationError, Exception: as for one; of any member.
        """
        await self._handle(Batch(self._contract.subject, deliveries))

    # -- one message -------------------------------------------------------------------------

    async def _read(self, delivery: Delivery, call_next: CallNext) -> None:
        """Decode the message, and let what follows be done in its context and in a span."""
        decoded = self._contract.codec.decode(
            self._contract, delivery, envelope=self._reads_envelope
        )
        delivery.event_id = decoded.event_id
        delivery.envelope = decoded.envelope
        with span(
            f"handle {delivery.subject}",
            kind="consumer",
            context=context_from_message(decoded.sent, delivery.headers, self._service),
            subscriber=self._durable,
            event_id=decoded.event_id,
            attempt=delivery.attempt,
        ):
            delivery.payload = decoded.payload()
            await call_next(delivery)

    async def _commit(self, delivery: Delivery, call_next: CallNext) -> None:
        """Commit the effect together with the inbox row, which says that it happened."""

        async def handle(uow: UnitOfWork) -> None:
            if await Inbox(uow.session).accept(self._durable, delivery.event_id):
                delivery.unit_of_work = uow
                await call_next(delivery)
            else:
                _logger.info("already handled", extra={"event_id": delivery.event_id})

        await self._transact(handle)

    def _call(self, delivery: Delivery) -> Awaitable[None]:
        return self._call_with(
            {
                self._contract.payload: delivery.payload,
                Envelope: delivery.envelope,
                Delivery: delivery,
                Context: current(),
                UnitOfWork: delivery.unit_of_work,
            }
        )

    def _call_with_payload(self, delivery: Delivery) -> Awaitable[None]:
        return self._function(**{self._payload_only: delivery.payload})

    # -- a batch -----------------------------------------------------------------------------

    async def _read_batch(self, batch: Delivery, call_next: CallNext) -> None:
        """Decode its messages, and let what follows be done in a span of the batch's own."""
        for delivery in batch.deliveries:
            decoded = self._contract.codec.decode(
                self._contract, delivery, envelope=self._reads_envelope
            )
            delivery.event_id = decoded.event_id
            delivery.envelope = decoded.envelope
            delivery.payload = decoded.payload()
        with span(
            f"handle batch {self._contract.subject}",
            kind="consumer",
            context=Context.start(service=self._service),
            subscriber=self._durable,
            messages=len(batch.deliveries),
            event_ids=[delivery.event_id for delivery in batch.deliveries],
        ):
            await call_next(batch)

    async def _commit_batch(self, batch: Delivery, call_next: CallNext) -> None:
        """Commit the effect of those that are new together with their inbox rows."""

        async def handle(uow: UnitOfWork) -> None:
            inbox = Inbox(uow.session)
            fresh = [
                delivery
                for delivery in batch.deliveries
                if await inbox.accept(self._durable, delivery.event_id)
            ]
            if fresh:
                new = Batch(batch.subject, fresh)
                new.unit_of_work = uow
                await call_next(new)

        await self._transact(handle)

    def _call_with_lists(self, batch: Delivery) -> Awaitable[None]:
        deliveries = batch.deliveries
        return self._call_with(
            {
                list_of(self._contract.payload): [each.payload for each in deliveries],
                list_of(Envelope): [each.envelope for each in deliveries],
                list_of(Delivery): list(deliveries),
                Context: current(),
                UnitOfWork: batch.unit_of_work,
            }
        )

    # -- both --------------------------------------------------------------------------------

    def _call_with(self, message: Mapping[object, object]) -> Awaitable[None]:
        provided = self._provided
        return self._function(
            **{
                parameter: message[kind] if kind in message else provided[kind]
                for parameter, kind in self._handler.needs.items()
            }
        )

    async def _in_thread(self, **arguments: object) -> None:
        """Call a plain function in a thread, and wait for its end whatever happens.

        A thread cannot be cancelled: its message is nobody else's before it is through.
        """
        call = partial(copy_context().run, self._plainly, arguments)
        work = asyncio.get_running_loop().run_in_executor(self._threads, call)
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                _logger.warning("%s: its thread is waited for", self._durable)
        work.result()

    def _plainly(self, arguments: Mapping[str, object]) -> None:
        try:
            self._handler.function(**arguments)
        except StopIteration as error:  # as a coroutine would raise it: a future takes none
            raise RuntimeError("the handler raised StopIteration") from error
