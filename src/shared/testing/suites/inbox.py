"""A message is accepted once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shared.delivery import Inbox
from shared.testing.suites.base import ServiceSuite

if TYPE_CHECKING:
    from shared.config import DatabaseSettings
    from shared.database import Database


_AT_ONCE = 5


class _Undo(Exception):  # noqa: N818 - no error, a wish
    pass


class InboxSuite(ServiceSuite):
    """The inbox of a service. Set `service`."""

    async def accepted(self, database: Database, subscriber: str, message: str) -> bool:
        """Accept in a transaction of its own."""
        async with self.unit_of_work(database) as uow:
            return await Inbox(uow.session).accept(subscriber, message)

    async def test_a_message_is_accepted_once_by_each_subscriber(
        self, database_settings: DatabaseSettings
    ) -> None:
        async with self.database(database_settings) as database:
            assert await self.accepted(database, "one", "message")
            assert not await self.accepted(database, "one", "message")
            assert await self.accepted(database, "one", "another")
            assert await self.accepted(database, "two", "message")

    async def test_what_is_undone_is_not_accepted(
        self, database_settings: DatabaseSettings
    ) -> None:
        async with self.database(database_settings) as database:
            with pytest.raises(_Undo):
                async with self.unit_of_work(database) as uow:
                    assert await Inbox(uow.session).accept("one", "message")
                    raise _Undo
            assert await self.accepted(database, "one", "message")

    async def test_of_many_at_once_one_is_accepted(
        self, database_settings: DatabaseSettings
    ) -> None:
        async with self.database(database_settings) as database:
            answers = await asyncio.gather(
                *(self.accepted(database, "one", "message") for _ in range(_AT_ONCE))
            )
        assert sorted(answers) == [False] * (_AT_ONCE - 1) + [True]
