"""Handlers: what a service does when a message of a contract arrives.

A handler is an async function. What it is given is decided by the annotations of its parameters:

- the contract's payload type: the payload, validated;
- ``UnitOfWork``: the transaction of this message. Its database effect happens once however often
  the message is delivered, because the inbox row commits with it;
- ``Envelope``, ``Context``: the message's envelope and the context bound while it is handled;
- any other type: the object a provider of the service provides.

A handler that returns acknowledges its message, after its transaction committed. What an error
does is looked up in ``shared.errors.outcome_of``: retry with the policy's delay, or dead letter.
A handler without a ``UnitOfWork`` runs at least once and must bear being repeated.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel

from shared.context import Context, bind, current
from shared.delivery import Inbox, UnitOfWork
from shared.events import Contract, Envelope, context_from_message
from shared.messaging import Delivery, RetryPolicy
from shared.service.declaration import DeclarationError
from shared.tracing import span

if TYPE_CHECKING:
    from shared.service.providers import Provisions

__all__ = ["Handler", "HandlerRunner"]

_logger = logging.getLogger(__name__)

HandlerFunction = Callable[..., Awaitable[None]]
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
    ) -> Handler:
        """Read a handler from its function.

        Raises:
            DeclarationError: not an async function, a parameter without annotation, or a payload
                model that is not the contract's.
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
        return cls(
            contract=contract,
            function=function,
            name=name or function.__name__,
            concurrency=concurrency,
            retry=retry or RetryPolicy(),
            ack_wait_seconds=ack_wait_seconds,
            deadline_seconds=deadline_seconds,
            needs=hints,
        )

    @property
    def transactional(self) -> bool:
        """Whether it takes a unit of work, and so happens once."""
        return UnitOfWork in self.needs.values()

    def durable(self, service: str) -> str:
        """Return the name of its durable consumer: stable over restarts and replicas."""
        return f"{service}-{re.sub('[^A-Za-z0-9_-]', '_', self.name)}"

    def provided_types(self) -> set[type[Any]]:
        """Return the types it needs that do not come with the message."""
        return set(self.needs.values()) - {
            self.contract.payload,
            Envelope,
            Context,
            Delivery,
            UnitOfWork,
        }


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
    ) -> None:
        """Bind the handler to a running service.

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
        self._durable = handler.durable(service)
        self._service = service
        self._provisions = provisions
        self._unit_of_work = unit_of_work

    async def __call__(self, delivery: Delivery) -> None:
        """Handle one delivery; a message whose effect is committed already is passed over.

        Raises:
            EnvelopeError: the body is no envelope.
            pydantic.ValidationError: the payload does not fit the contract.
            Exception: whatever the handler raises; its transaction is rolled back.
        """
        envelope = Envelope.decode(delivery.body)
        context = context_from_message(envelope, delivery.headers, self._service)
        with (
            bind(context),
            span(
                f"handle {delivery.subject}",
                kind="consumer",
                parent=context.trace,
                subscriber=self._durable,
                event_id=envelope.event_id,
                attempt=delivery.attempt,
            ),
        ):
            message: dict[type[Any], object] = {
                self._handler.contract.payload: self._handler.contract.read(envelope),
                Envelope: envelope,
                Context: current(),
                Delivery: delivery,
            }
            if self._unit_of_work is None or not self._handler.transactional:
                await self._call(message)
                return
            async with self._unit_of_work() as uow:
                if await Inbox(uow.session).accept(self._durable, envelope.event_id):
                    await self._call({**message, UnitOfWork: uow})
                else:
                    _logger.info("already handled", extra={"event_id": envelope.event_id})

    async def _call(self, message: Mapping[type[Any], object]) -> None:
        await self._handler.function(
            **{
                parameter: message[kind] if kind in message else self._provisions.get(kind)
                for parameter, kind in self._handler.needs.items()
            }
        )
