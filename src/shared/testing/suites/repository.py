"""What is saved is found, in the transaction of the unit of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import inspect

from shared.errors import ValidationError
from shared.testing.suites.base import ServiceSuite

if TYPE_CHECKING:
    from shared.config import DatabaseSettings
    from shared.database import Base, Database


class _Undo(Exception):  # noqa: N818 - no error, a wish
    pass


class RepositorySuite(ServiceSuite):
    """The repository of a model. Set `service`, `model` and `make`.

    The suite works for the tenant of each row (`tenant_of`), as row-level security wants it.
    """

    model: type[Any]
    """The mapped class; the service's migrations make its table."""

    def make(self, number: int) -> Base:
        """Make a row, not yet saved; another one for each number."""
        raise NotImplementedError(f"{type(self).__name__}.make(number) says what is saved")

    def identity(self, row: Base) -> Any:
        """Return the primary key of a row."""
        (identity,) = inspect(self.model).primary_key_from_instance(row)
        return identity

    async def saved(self, database: Database, row: Base) -> Base:
        """Save a row in a unit of work of its own."""
        with self.scope(row):
            async with self.unit_of_work(database) as uow:
                await uow.repository(self.model).save(row)
        return row

    async def visible(self, database: Database, row: Base) -> set[Any]:
        """Return the primary keys of all rows, as the tenant of `row` sees them."""
        with self.scope(row):
            async with self.unit_of_work(database) as uow:
                repository = uow.repository(self.model)
                found = [self.identity(each) for each in await repository.find_all()]
                assert len(found) == len(set(found)) == await repository.count()
                return set(found)

    async def test_what_is_saved_is_found_and_what_is_deleted_is_not(
        self, database_settings: DatabaseSettings
    ) -> None:
        async with self.database(database_settings) as database:
            saved = await self.saved(database, self.make(1))
            other = await self.saved(database, self.make(2))
            both = {self.identity(saved), self.identity(other)}
            seen = set[Any]()
            for row in (saved, other):
                seen |= await self.visible(database, row)
            assert seen == both
            with self.scope(saved):
                async with self.unit_of_work(database) as uow:
                    repository = uow.repository(self.model)
                    found = await repository.find_by_id(self.identity(saved))
                    assert found is not None
                    assert self.identity(found) == self.identity(saved)
                    before = await repository.count()
                    await repository.delete(found)
                    assert await repository.find_by_id(self.identity(saved)) is None
                    assert await repository.count() == before - 1
            assert self.identity(saved) not in await self.visible(database, saved)
            assert await self.visible(database, other) == {self.identity(other)}

    async def test_repositories_of_a_unit_of_work_are_undone_together(
        self, database_settings: DatabaseSettings
    ) -> None:
        # A unit of work is for one tenant, so that the second row is in it if it is of the first.
        rows = [self.make(1), self.make(2)]
        same_tenant = [row for row in rows if self.tenant_of(row) == self.tenant_of(rows[0])]
        async with self.database(database_settings) as database:
            with self.scope(rows[0]):
                with pytest.raises(_Undo):
                    async with self.unit_of_work(database) as uow:
                        for row in same_tenant:
                            await uow.repository(self.model).save(row)
                        assert await uow.repository(self.model).count() == len(same_tenant)
                        raise _Undo
                async with self.unit_of_work(database) as uow:
                    assert await uow.repository(self.model).count() == 0

    async def test_an_unknown_column_is_told(self, database_settings: DatabaseSettings) -> None:
        async with self.database(database_settings) as database:
            with self.scope(self.make(1)):
                async with self.unit_of_work(database) as uow:
                    with pytest.raises(ValidationError):
                        await uow.repository(self.model).find_all(no_such_column=1)
