"""Handlers: what a service does when a message of a contract arrives.

A handler is an async function, or a plain one, which runs in a thread so that it may block. What it
is given is decided by the annotations of its parameters:

- the contract's payload type: the payload, validated;
- ``UnitOfWork``: the transaction of this message, for async functions. Its database effect happens
  once however often the message is delivered, because the inbox row commits with it;
- ``Envelope``, ``Context``: the message's envelope and the context bound while it is handled;
- any other type: the object a provider of the service provides.

A handler of batches is given lists instead: ``list[Payload]``, ``list[Envelope]``,
``list[Delivery]``, all in the same order, and one ``UnitOfWork`` for all of them.

A handler that returns acknowledges its message, after its transaction committed. What an error
does is looked up in ``shared.errors.outcome_of``: retry with the policy's delay, or dead letter.
A handler without a ``UnitOfWork`` runs at least once and must be idempotent.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import GenericAlias
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from shared.context import Context
from shared.delivery import UnitOfWork
from shared.events import Codec, Contract, Envelope
from shared.messaging import BatchPolicy, Delivery, RetryPolicy, Subscription
from shared.service.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from shared.messaging import Middleware


HandlerFunction = Callable[..., Any]
OrderBy = str | Callable[[Any], object]


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
    middleware: Sequence[Middleware] = ()
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
        middleware: Sequence[Middleware] = (),
    ) -> Handler:
        """Read a handler from its function.

        Raises:
            DeclarationError: a parameter without annotation, a payload model that is not the
                contract's, or options that do not fit it or each other.
        """
        label = getattr(function, "__qualname__", repr(function))
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise DeclarationError(f"handler {label} is a generator, which nothing would run")
        hints = get_type_hints(function)
        hints.pop("return", None)
        if not inspect.iscoroutinefunction(function):
            _check_plain(label, set(hints.values()), deadline_seconds)
        bare = [p for p in inspect.signature(function).parameters if p not in hints]
        if bare:
            raise DeclarationError(f"handler {label}: annotate the parameter {', '.join(bare)}")
        for parameter, kind in hints.items():
            if _is_other_payload(kind, contract):
                raise DeclarationError(
                    f"handler {label}: {parameter} is {kind.__name__}, but {contract.subject} "
                    f"carries {contract.payload.__name__}"
                )
        if not contract.codec.enveloped and {Envelope, list_of(Envelope)} & {*hints.values()}:
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
            middleware=tuple(middleware),
            needs=hints,
        )

    @property
    def transactional(self) -> bool:
        """Whether it takes a unit of work, and so happens once."""
        return UnitOfWork in self.needs.values()

    @property
    def blocking(self) -> bool:
        """Whether it is a plain function, which runs in a thread."""
        return not inspect.iscoroutinefunction(self.function)

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
        middleware: Sequence[Middleware] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> Subscription:
        """Return what a service subscribes with for it.

        Args:
            service: the service's name.
            handle: handles one message.
            stream: the stream that holds the contract's subject.
            handle_batch: handles several; for a handler of batches.
            middleware: the service's, around that of the handler.
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
            middleware=middleware,
            metadata=metadata or {},
        )

    def provided_types(self) -> set[type[Any]]:
        """Return the types it needs that do not come with the message."""
        single = {self.contract.payload, Envelope, Delivery}
        lists = {list_of(kind) for kind in single}
        given = {*(lists if self.batch else single), Context, UnitOfWork}
        return {kind for kind in self.needs.values() if kind not in given}

    def key_of(self, delivery: Delivery) -> str | None:
        """Return the key that orders a delivery's message; None if it has none.

        Raises:
            EnvelopeError: ``order_by`` is a function, and the body is not an envelope.
            pydantic.ValidationError: it is one, and the payload does not fit the contract.
            Exception: what it raises.
        """
        if isinstance(self.order_by, str):
            return _field(self.contract.codec, delivery.body, self.order_by.split("."))
        if self.order_by is None:
            return None
        key = self.order_by(self.contract.codec.decode(self.contract, delivery).payload())
        return None if key is None else str(key)


def list_of(kind: object) -> object:
    """Return the annotation of a list of ``kind``, which a handler of batches is given."""
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


def _check_plain(label: str, kinds: set[type[Any]], deadline_seconds: float | None) -> None:
    """Refuse to a plain function what cannot work in a thread."""
    if UnitOfWork in kinds:
        raise DeclarationError(
            f"handler {label} is a plain function and runs in a thread, where no UnitOfWork can be "
            f"used: make it async def {label}(...), or do without"
        )
    if deadline_seconds is not None:
        raise DeclarationError(
            f"handler {label} is a plain function and runs in a thread, which nothing can cancel: "
            f"make it async def {label}(...), or leave deadline_seconds out"
        )


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
                f"handler {label}: order_by={order_by!r} is not a field of "
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
