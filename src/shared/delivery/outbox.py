"""The outbox: messages that leave if, and only if, the transaction commits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import event, func, text

from shared.context import current
from shared.delivery.tables import OutboxRow
from shared.events import Envelope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from shared.events import Contract

__all__ = ["Outbox", "UndeclaredContractError"]

P = TypeVar("P", bound=BaseModel)


class UndeclaredContractError(LookupError):
    """A service adds what it has not declared to publish. A mistake in its code, not an input."""


class Outbox:
    """Takes the messages of one transaction. Nothing is published before the commit, or without it.

    Args:
        session: the transaction.
        service: the service, named as source.
        publishes: contracts the service has declared; None allows any.
        notify: wake relays in other processes with NOTIFY at the commit.
    """

    def __init__(
        self,
        session: AsyncSession,
        *,
        service: str,
        publishes: Collection[Contract[Any]] | None = None,
        notify: bool = True,
    ) -> None:
        self._session = session
        self._service = service
        self._publishes = publishes
        self._notify = notify
        self._used = False

    @property
    def used(self) -> bool:
        """Whether anything was added."""
        return self._used

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

        Args:
            contract: subject and payload type; it must be among the service's ``publishes``.
            payload: an instance of ``contract.payload``.
            key: messages of one key are published in the order in which they were added; others
                in any order. Usually the id of what the message is about.
            idempotency_key: two messages of one subject and key count as one within the stream's
                window for duplicates.
            delay: publish no earlier than so long after the transaction began, by the database's
                clock. A delayed message does not hold back later ones of its key.
            headers: added to those of the envelope.
            metadata: added to those of the envelope.

        Raises:
            UndeclaredContractError: the contract is not among ``publishes``; says the line to add.
        """
        if self._publishes is not None and contract not in self._publishes:
            raise UndeclaredContractError(_missing(self._service, contract))
        envelope = Envelope.create(
            contract,
            payload,
            source_service=self._service,
            idempotency_key=idempotency_key,
            metadata=dict(metadata or {}),
        )
        context = current()
        row = OutboxRow(
            event_id=str(envelope.event_id),
            subject=envelope.subject,
            key=key,
            message_id=envelope.message_id,
            headers={**envelope.headers(context.trace if context else None), **(headers or {})},
            body=envelope.encode(),
            created_at=datetime.now(UTC),
        )
        if delay is not None:
            row.available_at = func.now() + delay
            row.delayed = True
        if self._notify and not self._used:
            event.listen(self._session.sync_session, "before_commit", _notify)
        self._used = True
        self._session.add(row)
        return envelope


def channel_of(schema: str) -> str:
    """Return the NOTIFY channel of the outbox in ``schema``."""
    return f"glam_outbox_{schema}"


def _notify(session: Session) -> None:
    # PostgreSQL sends it when, and only when, the transaction commits.
    session.execute(text("SELECT pg_notify('glam_outbox_' || current_schema(), '')"))


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
