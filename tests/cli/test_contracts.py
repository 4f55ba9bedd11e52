"""`glam contracts`, as typed."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from typer.testing import CliRunner

from shared.cli.app import app
from shared.cli.target import load_service
from shared.config import DatabaseSettings, ServiceSettings

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

    from shared.config import NatsSettings

TILL = """
from pydantic import BaseModel
from shared.config import ServiceSettings
from shared.events import CONVENTION, Contract
from shared.service import Service


class Spent(BaseModel):
    amount: int


SPENT = Contract("evt.credit.spent", Spent)
till = Service("till-service", publishes=[SPENT])
books = Service("books-service", streams=[CONVENTION.of(SPENT)])


@books.handles(SPENT)
async def book(spent: Spent) -> None: ...
"""
BOTH = ("till.py:till", "till.py:books")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    (tmp_path / "till.py").write_text(TILL)
    return tmp_path


def glam(*arguments: str) -> Result:
    from shared.contracts import source

    source._tree.cache_clear()  # a process reads each file once
    result = CliRunner().invoke(app, ["contracts", *arguments])
    sys.modules.pop("till", None)
    return result


def change(project: Path, before: str, after: str) -> None:
    text = (project / "till.py").read_text()
    assert before in text
    (project / "till.py").write_text(text.replace(before, after))


@pytest.mark.usefixtures("project")
def test_the_table_says_who_speaks_and_who_hears() -> None:
    for arguments in (BOTH, ("list", *BOTH)):
        shown = glam(*arguments).output
        row = next(line for line in shown.splitlines() if "evt.credit.spent" in line)
        assert [cell.strip() for cell in row.strip("│").split("│")] == [
            *("evt.credit.spent", "CREDIT", "Spent", "1", "till-service", "books-service")
        ]
    rows = {row["subject"]: row for row in json.loads(glam(*BOTH, "--json").stdout)}
    assert rows["evt.credit.spent"]["producers"] == ["till-service"]
    assert rows["evt.credit.spent"]["consumers"] == ["books-service"]
    assert list(rows) == ["evt.credit.spent"]


def test_what_a_project_declares_is_there_unless_services_are_named(project: Path) -> None:
    assert "no services/*/service.py here" in glam("list").output
    (project / "pyproject.toml").write_text('[tool.glam]\ncontracts = ["shop_contracts"]\n')
    (project / "shop_contracts.py").write_text(
        "from pydantic import BaseModel\nfrom shared.events import Contract\n"
        "class Sold(BaseModel): ...\nSOLD = (Contract('evt.shop.sold', Sold),)\n"
    )
    assert [row["subject"] for row in json.loads(glam("list", "--json").stdout)] == [
        "evt.shop.sold"
    ]
    rows = json.loads(glam(*BOTH, "--json").stdout)
    assert [row["subject"] for row in rows] == ["evt.credit.spent"]
    (project / "pyproject.toml").write_text('[tool.glam]\ncontracts = ["json"]\n')
    assert "json holds no Contract" in glam("list").output


def test_asyncapi_is_written_as_yaml_and_as_json(project: Path) -> None:
    written = yaml.safe_load(glam("asyncapi", *BOTH).stdout)
    assert glam("asyncapi", *BOTH, "-o", "api.json").exit_code == 0
    assert json.loads((project / "api.json").read_text()) == written
    assert "till-service.send.evt.credit.spent.v1" in written["operations"]
    assert "books-service.receive.book" in written["operations"]
    assert "&id" not in glam("asyncapi", *BOTH).stdout


def test_schemas_are_written_one_for_each_version(project: Path) -> None:
    assert glam("schemas", *BOTH, "-o", "schemas").exit_code == 0
    schema = json.loads((project / "schemas" / "evt.credit.spent.v1.json").read_text())
    assert schema["$id"] == "urn:glam:contract:evt.credit.spent.v1"
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for file in (project / "schemas").iterdir():
        Draft202012Validator.check_schema(json.loads(file.read_text()))
    Draft202012Validator(schema).validate({"amount": 1})
    assert not Draft202012Validator(schema).is_valid({})


def test_check_tells_breaking_from_stale_from_the_same(project: Path) -> None:
    assert glam("check", *BOTH).exit_code == 3
    assert glam("lock", *BOTH).exit_code == 0
    assert glam("check", *BOTH).exit_code == 0
    change(project, "amount: int", 'amount: int\n    note: str = ""')
    stale = glam("check", *BOTH)
    assert stale.exit_code == 3
    assert "run `glam contracts lock`" in stale.output
    assert glam("check", *BOTH, "--allow-stale").exit_code == 0
    assert glam("lock", *BOTH).exit_code == 0
    change(project, "amount: int", "cents: int")
    broken = glam("check", *BOTH, "--allow-stale")
    assert broken.exit_code == 1
    assert "till.py:9: breaking: evt.credit.spent version 1" in broken.output
    assert 'payload["cents"] = payload.pop("amount")' in broken.output
    locked = (project / "contracts.lock.json").read_text()
    assert glam("lock", *BOTH).exit_code == 1
    assert (project / "contracts.lock.json").read_text() == locked
    assert glam("lock", *BOTH, "--accept-breaking").exit_code == 0
    assert glam("check", *BOTH).exit_code == 0


def test_what_check_says_to_do_is_enough(project: Path) -> None:
    glam("lock", *BOTH)
    change(project, "amount: int", "cents: int")
    remedy = glam("check", *BOTH).output.partition("What to do:\n")[2]
    first, *rest = [line[4:] for line in remedy.splitlines()]
    change(project, 'SPENT = Contract("evt.credit.spent", Spent)', "\n".join([first, *rest]))
    change(project, "from pydantic", "from typing import Any\nfrom pydantic")
    assert glam("check", *BOTH).exit_code == 3
    assert glam("lock", *BOTH).exit_code == 0


def test_impact_asks_the_broker_who_would_break(
    project: Path, nats_settings: NatsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAM_NATS_SERVERS", nats_settings.servers[0])
    settings = ServiceSettings(nats=nats_settings, database=DatabaseSettings(enabled=False))

    async def deploy() -> None:
        from shared.messaging import find_consumers

        async with load_service("till.py:books").assemble(settings) as application:
            async with asyncio.timeout(120):
                while not await find_consumers(application.bus, "evt.credit.spent"):
                    await asyncio.sleep(0.01)

    assert "no consumer on this server" in glam("impact", "till.py:till").output
    asyncio.run(deploy())
    fine = glam("impact", "till.py:till")
    assert fine.exit_code == 0
    assert "books-service-book" in fine.output
    change(project, "amount: int", "cents: int")
    broken = glam("impact", "till.py:till")
    assert broken.exit_code == 1
    assert "amount is required, and may be missing" in broken.output
    told = glam("impact", "till.py:till", "--json").stdout
    (found,) = json.loads(told[told.index("[\n") :])  # the service's log is in this process too
    assert (found["service"], found["verdict"]) == ("books-service", "breaks")
    asyncio.run(deploy())
    assert glam("impact", "till.py:till").exit_code == 0
    assert glam("impact", "--subject", "evt.nowhere.x").exit_code == 2


def test_this_repository_keeps_to_its_own_lock() -> None:
    assert glam("check").exit_code == 0
