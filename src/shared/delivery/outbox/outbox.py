"""The outbox: messages that leave if, and only if, the transaction commits.

How an added message gets into the commit: `Outbox.add` puts it into the `Buffer` of the unit of
work. If that has a transaction, the buffer is written by one statement just before its COMMIT. If
it only added messages, there is nothing else to commit: the statement is a transaction of its own
(the autocommit path), which the units of work that end at the same time share (`GroupCommit`).
`UnitOfWork` decides which.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json

from shared.context import current
from shared.delivery.outbox.commit import Buffer, BufferedMessage
from shared.events import Envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from shared.events import Contract


P = TypeVar("P", bound=BaseModel)

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a token of RFC 9110, section 5.6.2

# What told the server how to take one message. Sent on with another, it would have that one refused
# for good, or the stream emptied before it.
_INSTRUCTIONS = ("nats-expected-", "nats-batch-", "nats-rollup", "nats-schedule")


class UndeclaredContractError(LookupError):
    """A service adds what it has not declared to publish. A mistake in its code, not an input."""


class Outbox:
    """Takes the messages of one transaction. Nothing is published before the commit, or without it.

    They are written by one statement when the transaction commits; those added inside a savepoint
    that is rolled back are not.

    Args:
        buffer: of the unit of work.
        service: the service, named as source.
        publishes: contracts the service has declared; None allows any.
    """

    def __init__(
        self,
        buffer: Buffer,
        *,
        service: str,
        publishes: Collection[Contract[Any]] | None = None,
    ) -> None:
        self._buffer = buffer
        self._service = service
        self._publishes = publishes
        self.used = False
        """Whether anything was added."""

    def add(
        self,
        contract: Contract[P],
        payload: P,
        *,
        key: str | None = None,
        idempotency_key: str | None = None,
        delay: timedelta | None = None,
        headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Envelope:
        """Add a message; return the envelope that will be published.

        >>> async with units() as uow:
        ...     envelope = uow.outbox.add(PAID, Paid(number="1001"), key="1001")
        >>> envelope.subject
        'evt.order.paid'

        Args:
            contract: subject and payload type; it must be among the service's ``publishes``.
            payload: an instance of ``contract.payload``.
            key: messages of one key are published in the order in which they were added; others
                in any order. Usually the id of what the message is about.
            idempotency_key: two messages of one subject and key count as one within the stream's
                window for duplicates.
            delay: publish no earlier than so long after the transaction began, by the database's
                clock. A delayed message does not hold back later ones of its key.
            headers: added to those of the envelope. They may be those of a received message: what
                told the server how to take that one (its conditions, its batch) is left out.
            metadata: added to those of the envelope.

        Raises:
            UndeclaredContractError: the contract is not among ``publishes``; says the line to add.
            ValueError: a header has a name that none can have, or a value that is not text.
        """
        if self._publishes is not None and contract not in self._publishes:
            raise UndeclaredContractError(_missing(self._service, contract))
        envelope = Envelope.create(
            contract,
            payload,
            source_service=self._service,
            idempotency_key=idempotency_key,
            metadata=metadata,
        )
        context = current()
        sent_with = envelope.headers(context.trace if context else None)
        if headers:
            sent_with |= _sent_on(headers)
        self._buffer.append(
            BufferedMessage(
                event_id=envelope.event_id,
                subject=envelope.subject,
                key=key,
                message_id=envelope.message_id,
                headers=to_json(sent_with).decode(),
                body=contract.codec.encode(envelope),
                created_at=datetime.now(UTC),
                delay=delay,
            )
        )
        self.used = True
        return envelope


def channel_of(schema: str) -> str:
    """Return the NOTIFY channel of the outbox in ``schema``."""
    return f"glam_outbox_{schema}"


def _sent_on(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name: letters, digits and !#$%&'*+-.^_`|~")
        if not isinstance(value, str):
            raise ValueError(f"header {name} is not text: {value!r}")  # noqa: TRY004 - as any bad header
    return {n: v for n, v in headers.items() if not n.lower().startswith(_INSTRUCTIONS)}


def _missing(service: str, contract: Contract[Any]) -> str:
    name = _constant_name(contract)
    return (
        f"{service} does not declare that it publishes {contract.subject}; "
        f"add it where the service is made: Service({service!r}, publishes=[..., {name}])"
    )


def _constant_name(contract: Contract[Any]) -> str:
    """Find the name under which the module of the payload declares the contract."""
    import sys  # noqa: PLC0415 - only for the sentence of an error

    module = sys.modules.get(contract.payload.__module__)
    for name, value in vars(module).items() if module else ():
        if value is contract:
            return name
    return f"Contract({contract.subject!r}, {contract.payload.__name__})"
