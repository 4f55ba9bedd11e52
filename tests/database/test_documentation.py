"""The examples of docs/data.md, and those of the how-to about transactions, run as printed."""

import ast
import inspect
import re
from pathlib import Path
from types import CodeType
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy
import yaml
from alembic.migration import MigrationContext
from alembic.operations import Operations
from fastapi import APIRouter
from pydantic import BaseModel, SecretStr
from sqlalchemy import Connection, MetaData, orm

import shared.database
import shared.delivery
from shared import metrics
from shared.config import DatabaseSettings
from shared.database import Database
from shared.delivery import UnitOfWork, UnitOfWorkFactory
from shared.errors import ConflictError
from shared.service import UnitOfWorkFactoryDep
from tests.database.models import Coupon, Order
from tests.database.orders import order

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "data.md"


async def test_the_examples_run_as_printed(database_settings: DatabaseSettings) -> None:
    models, *blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)

    class Base(shared.database.Base):
        __abstract__ = True
        metadata = MetaData()
        _sa_registry = orm.registry(metadata=metadata)  # names of its own: other tests have a Line

    names = {
        **vars(sqlalchemy),
        **vars(orm),
        **vars(shared.database),
        "UUID": UUID,
        "Base": Base,
        "__name__": __name__,
    }
    exec(models, names)
    settings = database_settings.model_copy(
        update={"cursor_secret": SecretStr("the secret of the examples")}
    )
    async with Database(settings) as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with UnitOfWork(database, service="docs") as uow:
            names |= {"uow": uow, "merchant_id": UUID(int=1)}
            for block in blocks:
                ran = eval(compiled(block), names)
                if inspect.iscoroutine(ran):
                    await ran
            assert await names["orders"].count(status="sent") == 2


def compiled(block: str) -> CodeType:
    code: CodeType = compile(block, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


def blocks_of(heading: str, language: str = "python") -> list[str]:
    """The blocks of a section of the how-to."""
    section = (DOCS / "how-to.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


async def test_transactions_as_in_the_how_to(database: Database) -> None:
    savepoint, route = blocks_of("Undo a part, and try again after a conflict")
    units = UnitOfWorkFactory(database, service="docs")

    class Transfer(BaseModel):
        amount: int

    names: dict[str, Any] = {
        "Coupon": Coupon,
        "Transfer": Transfer,
        "UnitOfWork": UnitOfWork,
        "UnitOfWorkFactoryDep": UnitOfWorkFactoryDep,
        "router": APIRouter(),
        "coupon": Coupon(id=1, code="once"),
        "__name__": __name__,
    }
    exec(compiled(route), names)
    await names["transfer"](Transfer(amount=1), units)
    async with units() as uow:
        await eval(compiled(savepoint), names | {"uow": uow})
    async with units() as uow:
        names |= {"uow": uow, "coupon": Coupon(id=1, code="twice")}
        with pytest.raises(ConflictError):
            await eval(compiled(savepoint), names)
    async with units() as uow:
        assert [row.code for row in await uow.repository(Coupon).list()] == ["once"]


def test_standbys_are_set_as_in_the_how_to() -> None:
    (block,) = blocks_of("Read from standbys", "yaml")
    settings = DatabaseSettings.model_validate(yaml.safe_load(block)["database"])
    assert settings.replicas == ("replica-1", "replica-2:5433")


async def test_tenants_are_kept_apart_as_in_the_how_to(database: Database) -> None:
    upgrade, work = blocks_of("Keep merchants apart")

    def migrate(connection: Connection) -> None:
        names: dict[str, Any] = {
            "isolate_merchants": shared.database.isolate_merchants,
            "op": Operations(MigrationContext.configure(connection)),
        }
        exec(compiled(upgrade), names)
        names["upgrade"]()

    async with database.engine.begin() as connection:
        await connection.run_sync(migrate)
    units = UnitOfWorkFactory(database, service="docs")
    async with units() as uow:
        names = {
            **vars(shared.database),
            "Order": Order,
            "order": order(),
            "units": units,
            "uow": uow,
        }
        await eval(compiled(work), names)
    with pytest.raises(shared.database.TenantRequiredError):
        async with units() as uow:
            await uow.repository(Order).list()


def test_the_reference_names_what_there_is() -> None:
    section = (DOCS / "reference.md").read_text().split("\n## Database\n")[1]
    settings, errors, measured = section.split("\n\n")[:3]
    names = re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in settings.splitlines()[2:]))
    assert set(names) <= set(DatabaseSettings.model_fields)
    for row in errors.strip().splitlines()[2:]:
        name, code = (re.findall(r"`(\w+)`", cell) for cell in row.split("|")[1:3])
        kind = getattr(shared.database, name[0], None) or getattr(shared.delivery, name[0], None)
        assert not code or (kind is not None and kind.code == code[0])
    told = re.findall(r"`(database_\w+)`", measured)
    assert set(told) == {name for name in metrics.__all__ if name.startswith("database_")}
