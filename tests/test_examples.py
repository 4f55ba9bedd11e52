"""The examples in docstrings run, and answer what they show.

A name whose docstring has an example is added to `NAMES` by one line. What an example may use
without importing it: the public names of the package it stands in, and what the fixture of that
package provides (`PROVIDED`). ``await`` stands where it does in an ``async def``.
"""

from __future__ import annotations

import ast
import doctest
import io
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module
from importlib.util import find_spec
from inspect import cleandoc, iscoroutine
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy import MetaData, String
from sqlalchemy.orm import Mapped, mapped_column, registry

from shared import database as data_room
from shared.context.identifiers import uuid7
from shared.database import Database, Repository, migrate
from shared.delivery import UnitOfWorkFactory
from shared.errors import ConflictError
from shared.events import Contract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

    from shared.config import DatabaseSettings

NAMES = (
    "shared.database.Base",
    "shared.database.Database",
    "shared.database.Database.transaction",
    "shared.database.HistoryMixin",
    "shared.database.JsonModel",
    "shared.database.KeysetPage",
    "shared.database.MerchantMixin",
    "shared.database.Money",
    "shared.database.Repository",
    "shared.database.Repository.claim",
    "shared.database.Repository.find_all",
    "shared.database.Repository.get",
    "shared.database.Repository.page_by_key",
    "shared.database.Repository.save",
    "shared.database.Repository.update_many",
    "shared.database.Repository.upsert_many",
    "shared.database.SoftDeleteMixin",
    "shared.database.VersionedMixin",
    "shared.database.detached",
    "shared.database.migrate",
    "shared.database.money_column",
    "shared.database.tenant_scope",
    "shared.database.where",
    "shared.delivery.IdempotencyKeys",
    "shared.delivery.Inbox",
    "shared.delivery.Outbox.add",
    "shared.delivery.UnitOfWork",
    "shared.delivery.UnitOfWork.savepoint",
    "shared.delivery.UnitOfWorkFactory",
    "shared.delivery.UnitOfWorkFactory.run",
)

PROVIDED = {
    "shared.database": "shop",
    "shared.delivery": "shop",
}
"""The fixture that provides the names of a package's examples; of others, ``nothing``."""

USUAL: dict[str, Any] = {
    **{name: getattr(data_room, name) for name in data_room.__all__},
    "__name__": __name__,
    "BaseModel": BaseModel,
    "ConflictError": ConflictError,
    "Mapped": Mapped,
    "String": String,
    "mapped_column": mapped_column,
    "uuid7": uuid7,
}
"""What the files that such code stands in import."""


class Paid(BaseModel):
    number: str


@pytest.fixture
async def shop(database_settings: DatabaseSettings) -> AsyncIterator[dict[str, Any]]:
    """A database with orders, an outbox and an inbox; `units` makes units of work."""

    class Base(data_room.Base):
        __abstract__ = True
        metadata = MetaData(naming_convention=data_room.Base.metadata.naming_convention)
        _sa_registry = registry(metadata=metadata)

    class Order(Base, data_room.UUIDv7Mixin, data_room.VersionedMixin, data_room.SoftDeleteMixin):
        __tablename__ = "orders"
        number: Mapped[str] = mapped_column(String(20), unique=True)
        status: Mapped[str] = mapped_column(String(20), default="new")
        total: Mapped[data_room.Money] = data_room.money_column("total")

    settings = database_settings.model_copy(
        update={"cursor_secret": SecretStr("the secret of the examples")}
    )
    async with Database(settings, schema="shop") as database:
        await migrate(database, migrations="shared.delivery.migrations")
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield {
            "Base": Base,
            "Order": Order,
            "PAID": Contract("evt.order.paid", Paid),
            "Paid": Paid,
            "database": database,
            "orders": Repository(Order, database.session_factory),
            "settings": settings,
            "units": UnitOfWorkFactory(database, service="shop-service"),
        }
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture
def nothing() -> dict[str, Any]:
    """For packages whose examples stand by themselves."""
    return {}


def found(name: str) -> tuple[ModuleType, object]:
    """The package of a name, and what it names there."""
    package, *rest = name.split(".")
    with suppress(ModuleNotFoundError):  # a name in a module that is no package
        while rest and find_spec(f"{package}.{rest[0]}") is not None:
            package = f"{package}.{rest.pop(0)}"
    module = import_module(package)
    return module, attrgetter(".".join(rest))(module)


@pytest.fixture
def provided(name: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    names: dict[str, Any] = request.getfixturevalue(
        PROVIDED.get(found(name)[0].__name__, "nothing")
    )
    return names


@pytest.mark.parametrize("name", NAMES)
async def test_the_example_answers_what_it_shows(
    name: str, provided: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, item = found(name)
    examples = doctest.DocTestParser().get_examples(cleandoc(item.__doc__ or ""), name)
    assert examples, f"the docstring of {name} has no example"
    names = {one: getattr(module, one) for one in module.__all__}
    names |= USUAL | provided
    for example in examples:
        answer = await answered(example.source, name, names, monkeypatch)
        assert doctest.OutputChecker().check_output(example.want, answer, doctest.ELLIPSIS), (
            f"{name}: {example.source}shows {example.want}and answers {answer}"
        )


async def answered(
    source: str, name: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> str:
    """Run one example as the prompt of Python does; return what it prints."""
    printed = io.StringIO()

    def display(value: object) -> None:
        if value is not None:
            printed.write(f"{value!r}\n")

    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, name, "single", flags, dont_inherit=True)
    with redirect_stdout(printed), monkeypatch.context() as patched:
        patched.setattr(sys, "displayhook", display)
        try:
            result = eval(code, names)
            if iscoroutine(result):
                await result
        except Exception as error:  # noqa: BLE001 - an example may show one
            printed.write(f"{type(error).__name__}: {error}\n")
    return printed.getvalue()
