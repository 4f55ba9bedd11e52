"""The examples of docs/data.md run as printed, one after the other."""

import ast
import inspect
import re
from pathlib import Path
from types import CodeType
from uuid import UUID

import sqlalchemy
from pydantic import SecretStr
from sqlalchemy import MetaData, orm

import shared.database
from shared.config import DatabaseSettings
from shared.database import Database
from shared.delivery import UnitOfWork

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


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
