"""Group commit: events alone are committed by one statement for all that come while another runs.

A unit of work that only adds events needs no transaction of its own, so those of a process that end
at the same time share one. Alone, one waits for nobody. What none of the others may notice: that
the statement fails for the messages of one. PostgreSQL has undone it then, and each is written by
itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import greenlet_spawn

from shared.delivery.outbox.buffer import insert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from shared.database.engine.transactions import CommitMark
    from shared.delivery.outbox.buffer import BufferedMessage


_MESSAGES = 500  # of one statement, or those of one commit

# Classes of SQLSTATE: data exception, constraint violation, program limit exceeded, and what a
# trigger raises.
_REFUSALS = frozenset({"22", "23", "54", "P0"})

# A statement that stands still (its connection may be dead) does not hold up those behind it.
_HOLD_SECONDS = 0.05


@dataclass(slots=True, eq=False)
class _Commit:
    engine: Engine
    messages: list[BufferedMessage]
    notify: bool
    mark: CommitMark
    done: asyncio.Future[None]
    context: Context = field(default_factory=copy_context)  # of its trace


class GroupCommit:
    """Commits messages of one engine, those of several tasks by one statement."""

    def __init__(self) -> None:
        self._waiting: deque[_Commit] = deque()
        self._writing: set[asyncio.Task[None]] = set()
        self._hold_until = 0.0

    @staticmethod
    def of(engine: Engine) -> GroupCommit:
        """Return that of the engine."""
        found = _of_engine.get(engine)
        if found is None:
            found = _of_engine[engine] = GroupCommit()
        return found

    def commit(
        self, engine: Engine, messages: list[BufferedMessage], mark: CommitMark, *, notify: bool
    ) -> asyncio.Future[None]:
        """Commit the messages; the future is done then. One that is cancelled before is left out.

        Args:
            engine: its statements commit by themselves.
            messages: of one unit of work.
            mark: is told when the statement is sent.
            notify: whether relays elsewhere are to be woken.
        """
        loop = asyncio.get_running_loop()
        commit = _Commit(engine, messages, notify, mark, loop.create_future())
        self._waiting.append(commit)
        if not self._writing or loop.time() >= self._hold_until:
            # Soon: what other tasks commit in this turn of the loop goes along.
            loop.call_soon(self._write_next)
        return commit.done

    def _write_next(self) -> None:
        commits: list[_Commit] = []
        count = 0
        while self._waiting and (not commits or count + self._next_size <= _MESSAGES):
            commit = self._waiting.popleft()
            if not commit.done.done():
                commits.append(commit)
                count += len(commit.messages)
        if commits:
            self._start(commits)

    @property
    def _next_size(self) -> int:
        return len(self._waiting[0].messages)

    def _start(self, commits: Sequence[_Commit]) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._write(commits), context=commits[0].context)
        self._writing.add(task)
        self._hold_until = loop.time() + _HOLD_SECONDS
        overtaken = loop.call_at(self._hold_until, self._write_next)

        def ended(_: object) -> None:
            overtaken.cancel()
            self._writing.discard(task)
            self._write_next()

        task.add_done_callback(ended)

    async def _write(self, commits: Sequence[_Commit]) -> None:
        try:
            await greenlet_spawn(self._insert, commits)
        except Exception as error:  # noqa: BLE001 - it is theirs
            if len(commits) > 1 and _is_of_one(error):
                for commit in commits:
                    commit.mark.begun = False
                    self._start([commit])
            else:
                _end(commits, error)
        except BaseException:
            for commit in commits:
                commit.done.cancel()
            raise
        else:
            _end(commits, None)

    def _insert(self, commits: Sequence[_Commit]) -> None:
        with commits[0].engine.connect() as connection:
            messages: list[BufferedMessage] = []
            notify = False
            for commit in commits:
                commit.mark.begun = True
                messages += commit.messages
                notify = notify or commit.notify
            insert(connection, messages, notify=notify)


_of_engine: WeakKeyDictionary[Engine, GroupCommit] = WeakKeyDictionary()


def _end(commits: Sequence[_Commit], error: Exception | None) -> None:
    for commit in commits:
        if commit.done.done():  # its task was cancelled, and waits no longer
            continue
        if error is None:
            commit.done.set_result(None)
        else:
            commit.done.set_exception(error)


def _is_of_one(error: Exception) -> bool:
    """Whether a message was refused, by PostgreSQL, which undid the statement, or by the driver.

    Otherwise it is nobody's fault, and would be the same for each by itself.
    """
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return False
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is None:
        return isinstance(getattr(error.orig, "__cause__", None), asyncpg.DataError)
    return state[:2] in _REFUSALS
