"""Idempotency keys: what a caller was answered under a key, so that it is answered the same again.

An answer is kept by the very transaction that made it true. So a key is known exactly when its
effect is committed: a request that failed, was cancelled or died with its process leaves neither,
and may be tried again under the same key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import LargeBinary, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.database import translate_errors
from shared.errors import ConflictError, ValidationError

if TYPE_CHECKING:
    from alembic.operations import Operations
    from sqlalchemy.ext.asyncio import AsyncSession


class IdempotencyKeyInUseError(ConflictError):
    """The first request under the key is not answered yet; after a moment it may be."""

    code = "IDEMPOTENCY_KEY_IN_USE"
    message = "A request with this Idempotency-Key is still being worked on"
    retry_after: int = 1


class IdempotencyKeyReusedError(ValidationError):
    """The key was spent on another request."""

    code = "IDEMPOTENCY_KEY_REUSED"
    message = "This Idempotency-Key was sent with another request before: a new one needs a new key"


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request under a key. Keys belong to who sent them: others may use the same.

    ``fingerprint`` is equal for equal requests, and different for different ones.
    """

    key: str
    fingerprint: bytes
    tenant_id: str = ""
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller was answered. A header may be there more than once."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class _Base(DeclarativeBase):
    """Metadata apart from the models of services: their migrations do not compare this table."""


class IdempotencyKeyRow(_Base):
    """A key that is spent, and the answer it was spent on. When it was, only the janitor reads."""

    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int]
    headers: Mapped[list[tuple[str, str]]] = mapped_column(JSONB)
    body: Mapped[bytes] = mapped_column(LargeBinary)


_LOCK = text("""\
SELECT pg_try_advisory_xact_lock(hashtextextended(
  'glam.idempotency.' || current_schema() || '.' || CAST(:name AS text), 0))""")


class IdempotencyKeys:
    """The keys of callers, in one transaction.

    While the first request under a key runs, PostgreSQL holds an advisory lock for it, which ends
    with its transaction, however that ends. The lock is asked for and never waited for: a second
    request holds its connection no longer than two queries take. (Inserting a row first would make
    the second wait for the first, and have every row written twice.) Two keys may share a lock, by
    a chance of one in 2^64; then one of them is told once in vain that it is in use.

    >>> request = KeyedRequest("key-1", fingerprint=b"POST /orders")
    >>> async with units() as uow:
    ...     keys = IdempotencyKeys(uow.session)
    ...     if await keys.claim(request) is None:
    ...         keys.remember(request, Answer(201, (), b"made"))
    >>> async with units() as uow:
    ...     (await IdempotencyKeys(uow.session).claim(request)).body
    b'made'
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def claim(self, request: KeyedRequest) -> Answer | None:
        """Return the answer that is known for the request; None when it is ours to answer.

        Then the key is ours until the transaction ends. `remember` the answer before it commits.

        Raises:
            IdempotencyKeyInUseError: another transaction works on it.
            IdempotencyKeyReusedError: the key was spent on another request.
            DatabaseError: the database is away or refused.
        """
        name = f"{request.tenant_id}\n{request.user_id}\n{request.key}"
        row = IdempotencyKeyRow
        known = select(row.fingerprint, row.status, row.headers, row.body).where(
            row.tenant_id == request.tenant_id,
            row.user_id == request.user_id,
            row.key == request.key,
        )
        with translate_errors("idempotency key"):
            # Two statements, the lock first: each sees what was committed when it began, so what
            # the former holder of the lock has answered is seen by the second. Above READ
            # COMMITTED it may not be; there the primary key is what refuses a second effect.
            ours = await self._session.scalar(_LOCK, {"name": name})
            found = (await self._session.execute(known)).one_or_none()
        if found is None:
            if not ours:
                raise IdempotencyKeyInUseError
            return None
        if found.fingerprint != request.fingerprint:
            raise IdempotencyKeyReusedError
        headers = tuple((name, value) for name, value in found.headers)
        return Answer(found.status, headers, found.body)

    def remember(self, request: KeyedRequest, answer: Answer) -> None:
        """Keep the answer, if the transaction commits."""
        self._session.add(
            IdempotencyKeyRow(
                tenant_id=request.tenant_id,
                user_id=request.user_id,
                key=request.key,
                fingerprint=request.fingerprint,
                status=answer.status,
                headers=list(answer.headers),
                body=answer.body,
            )
        )


# As in `shared.delivery.outbox.tables`, this never changes: revisions of services call it for ever.
_CREATE = (
    """\
CREATE TABLE idempotency_keys (
  tenant_id text NOT NULL,
  user_id text NOT NULL,
  key text NOT NULL,
  fingerprint bytea NOT NULL,
  status integer NOT NULL,
  headers jsonb NOT NULL,
  body bytea NOT NULL,
  answered_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, user_id, key)
)""",
    "CREATE INDEX ix_idempotency_keys_answered_at ON idempotency_keys (answered_at)",
)


def create_idempotency_table(op: Operations | Any) -> None:
    """Create the table of idempotency keys; for a revision of a service whose routes honour them.

    Args:
        op: ``alembic.op``.
    """
    for statement in _CREATE:
        op.execute(statement)


def drop_idempotency_table(op: Operations | Any) -> None:
    """Drop the table of idempotency keys with everything in it.

    Args:
        op: ``alembic.op``.
    """
    op.execute("DROP TABLE idempotency_keys")
