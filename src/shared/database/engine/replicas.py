"""Standbys that read-only work goes to, while they are there and not too far behind."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from shared.database.engine.statements import INTERNAL
from shared.errors import GlamBaseError
from shared.metrics import database_replica_lag_seconds, database_replica_reads_total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine


_logger = logging.getLogger(__name__)

_CHECK_SECONDS = 1.0

# Everything received and replayed, from a primary that is connected: not behind, however long ago
# the last transaction was. Otherwise the age of the last one that was replayed.
_LAG = text("""\
SELECT CASE
  WHEN NOT pg_is_in_recovery() THEN NULL
  WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()
    AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE pid IS NOT NULL) THEN 0
  ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 'Infinity')
END::float""").execution_options(**INTERNAL)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A standby as it was when it was last asked; ``usable`` says whether it is read from."""

    host: str
    usable: bool
    lag_seconds: float | None = None
    """None when it does not answer, or does not say."""
    error: str | None = None


class Replica:
    """One standby."""

    def __init__(
        self, name: str, engine: AsyncEngine, *, service: str, max_lag_seconds: float
    ) -> None:
        self.engine = engine
        self.status = ReplicaStatus(name, usable=True)
        self._max_lag_seconds = max_lag_seconds
        self._checked = -inf
        self._lag = database_replica_lag_seconds.labels(service, name)

    def connect(self) -> Connection | None:
        """Open a connection to it; None when it is away or too far behind.

        It is asked how far once a second at most, and no more often when it is away. Called where
        SQLAlchemy may wait (in a greenlet of its own).
        """
        due = time.monotonic() - self._checked >= _CHECK_SECONDS
        if not self.status.usable and not due:
            return None
        if due:
            self._checked = time.monotonic()
        connection: Connection | None = None
        try:
            connection = self.engine.sync_engine.connect()
            if due:
                self._note(connection.scalar(_LAG))
                connection.rollback()
        except (GlamBaseError, SQLAlchemyError, OSError) as error:
            self._checked = time.monotonic()
            self._note(None, error=type(error).__name__)
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if connection is not None and not self.status.usable:
            connection.close()
            return None
        return connection

    def _note(self, lag: float | None, *, error: str | None = None) -> None:
        if lag is None and error is None:
            error = "not a standby"
        usable = lag is not None and lag <= self._max_lag_seconds
        if lag is not None and not usable:
            error = "too far behind"
        before, self.status = (
            self.status,
            ReplicaStatus(
                self.status.host,
                usable=usable,
                # Infinity is not JSON: it has replayed nothing, so nobody can say.
                lag_seconds=None if lag is None or lag == inf else round(lag, 3),
                error=error,
            ),
        )
        self._lag.set(inf if lag is None else lag)
        if before.usable != usable:
            level = logging.INFO if usable else logging.WARNING
            _logger.log(
                level,
                "standby is read from again" if usable else "standby is not read from",
                extra={"host": self.status.host, "lag_seconds": lag, "reason": error},
            )


class Replicas:
    """The standbys of a database, taken in turn."""

    def __init__(self, replicas: Sequence[Replica], *, service: str) -> None:
        self._replicas = list(replicas)
        self._next = 0
        self._from_standby = database_replica_reads_total.labels(service, "replica")
        self._from_primary = database_replica_reads_total.labels(service, "primary")

    def __bool__(self) -> bool:
        return bool(self._replicas)

    def connect(self) -> Connection | None:
        """Open a connection to the next one that can be read from; None when none can."""
        self._next += 1
        count = len(self._replicas)
        for step in range(count):
            connection = self._replicas[(self._next + step) % count].connect()
            if connection is not None:
                self._from_standby.inc()
                return connection
        self._from_primary.inc()
        return None

    def check(self) -> tuple[ReplicaStatus, ...]:
        """Ask each how far behind it is; where SQLAlchemy may wait."""
        for replica in self._replicas:
            connection = replica.connect()
            if connection is not None:
                connection.close()
        return tuple(replica.status for replica in self._replicas)

    async def close(self) -> None:
        """Close the idle connections."""
        for replica in self._replicas:
            await replica.engine.dispose()
