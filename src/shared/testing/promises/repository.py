"""What is saved is found, in the transaction of the unit of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect

from shared.errors import ValidationError
from shared.testing.promises._suites import ServiceSuite

if TYPE_CHECKING:
    from shared.config import DatabaseSettings
    from shared.database import Base

__all__ = ["RepositoryPromises"]


class _Undo(Exception):  # noqa: N818 - no error, a wish
    pass


class RepositoryPromises(ServiceSuite):
    """The repository of a model. Set `service`, `model` and `make`."""

    model: type[Any]
    """The mapped class; the service's migrations make its table."""

    def make(self, number: int) -> Base:
        """Make a row, not yet saved; another one for each number."""
        raise NotImplementedError(f"{type(self).__name__}.make(number) says what is saved")

    def identity(self, row: Base) -> Any:
        """Return the primary key of a row."""
        (identity,) = inspect(self.model).primary_key_from_instance(row)
        return identity

    async def test_what_is_saved_is_found_and_what_is_deleted_is_not(
        self, database_settings: DatabaseSettings
    ) -> None:
        async with self.database(database_settings) as database:
            async with self.unit_of_work(database) as uow:
                saved = await uow.repository(self.model).save(self.make(1))
                other = await uow.repository(self.model).save(self.make(2))
            async with self.unit_of_work(database) as uow:
                repository = uow.repository(self.model)
                found = await repository.find_by_id(self.identity(saved))
                assert found is not None
                assert self.identity(found) == self.identity(saved)
                assert await repository.count() == 2  # noqa: PLR2004
                await repository.delete(found)
                assert await repository.find_by_id(self.identity(saved)) is None
                assert await repository.count() == 1
                assert [self.identity(row) for row in await repository.find_all()] == [
                    self.identity(other)
                ]

    async def test_repositories_of_a_unit_of_work_are_undone_together(
        self, database_settings: DatabaseSettings
    ) -> None:
        async with self.database(database_settings) as database:
            with pytest.raises(_Undo):
                async with self.unit_of_work(database) as uow:
                    await uow.repository(self.model).save(self.make(1))
                    await uow.repository(self.model).save(self.make(2))
                    raise _Undo
            async with self.unit_of_work(database) as uow:
                assert await uow.repository(self.model).count() == 0

    async def test_an_unknown_column_is_told(self, database_settings: DatabaseSettings) -> None:
        async with self.database(database_settings) as database:
            async with self.unit_of_work(database) as uow:
                with pytest.raises(ValidationError):
                    await uow.repository(self.model).find_all(no_such_column=1)
