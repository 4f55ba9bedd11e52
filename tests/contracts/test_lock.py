"""The lock of contracts: what breaks whom, where, and what to do about it."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pytest

from shared.contracts import ContractChange, ContractLock, LockError, compare_contracts, describe
from shared.platform.declared import CONTRACTS

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
from pydantic import BaseModel, Field
from shared.events import Contract
from shared.service import Service


class Line(BaseModel):
    price: int
"""
BEFORE = """
class Spent(BaseModel):
    amount: int
    lines: list[Line] = []


SPENT = Contract("evt.credit.spent", Spent)
service = Service("till-service", publishes=[SPENT])
"""

Written = Any  # a function from source text to a ContractTable


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """The table of a module that is written anew each time, in a folder we are in."""
    monkeypatch.chdir(tmp_path)
    numbers = iter(range(100))

    def write(body: str, head: str = HEAD) -> Any:
        name = f"till_{tmp_path.name}_{next(numbers)}"
        file = tmp_path / f"{name}.py"
        file.write_text(head + body)
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return describe([module.service], declared=CONTRACTS)

    return write


def only(changes: tuple[ContractChange, ...]) -> ContractChange:
    assert len(changes) == 1, changes
    return changes[0]


def changed(table: Written, after: str, before: str = BEFORE, head: str = HEAD) -> ContractChange:
    lock = ContractLock.of(table(before))
    return only(compare_contracts(lock, table(after, head)))


def line(change: ContractChange) -> str:
    assert change.place is not None
    return change.place.file.read_text().splitlines()[change.place.line - 1].strip()


def test_a_lock_is_read_as_it_was_written(table: Written) -> None:
    lock = ContractLock.of(table(BEFORE))
    assert ContractLock.decode(lock.encode()) == lock
    assert ContractLock.decode(lock.encode()).encode() == lock.encode()
    assert compare_contracts(lock, table(BEFORE)) != ()  # another module: told, not broken
    assert len(lock.contracts) == len(CONTRACTS) + 1


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": 2, "contracts": {}}']
)
def test_what_is_no_lock_is_said_to_be_none(text: str) -> None:
    with pytest.raises(LockError, match="lock"):
        ContractLock.decode(text)


def test_a_new_required_field_breaks_old_messages(table: Written) -> None:
    change = changed(table, BEFORE.replace("amount: int", "amount: int\n    currency: str"))
    assert change.breaking
    assert line(change) == "currency: str"
    assert "currency is required, and may be missing (in messages" in change.reasons[0]
    assert "SPENT = Contract('evt.credit.spent', Spent, version=2)" in change.remedy
    assert "@SPENT.upcasts(from_version=1)" in change.remedy
    assert '"currency": ...' in change.remedy


def test_a_field_taken_away_breaks_old_readers(table: Written) -> None:
    change = changed(table, BEFORE.replace("    amount: int\n", ""))
    assert change.breaking
    assert line(change) == "class Spent(BaseModel):"
    assert "until deployed anew" in change.reasons[0]


def test_a_renamed_field_comes_with_the_step_that_renames_it(table: Written) -> None:
    change = changed(table, BEFORE.replace("amount: int", "cents: int"))
    assert line(change) == "cents: int"
    assert 'payload["cents"] = payload.pop("amount")' in change.remedy


@pytest.mark.parametrize(
    "after", ["price: str", "price: int | None", "price: int = 0", "price: int = Field(gt=0)"]
)
def test_a_change_of_a_nested_field_is_found_on_its_line(table: Written, after: str) -> None:
    change = changed(table, BEFORE, head=HEAD.replace("price: int", after))
    assert change.breaking
    assert "lines[].price" in change.reasons[0]
    assert line(change) == after


def test_a_new_optional_field_is_compatible(table: Written) -> None:
    change = changed(table, BEFORE.replace("amount: int", 'amount: int\n    note: str = ""'))
    assert not change.breaking


HANDLED = BEFORE.replace(
    ", publishes=[SPENT])",
    ")\n\n\n@service.handles(SPENT)\nasync def book(spent: Spent) -> None: ...\n",
)


def test_a_reader_alone_may_become_more_lenient_but_not_stricter(table: Written) -> None:
    lenient = HANDLED.replace("amount: int", "amount: int | None = None")
    assert not changed(table, lenient, before=HANDLED).breaking
    assert changed(table, HANDLED, before=lenient).breaking
    published = BEFORE.replace("amount: int", "amount: int | None = None")
    assert changed(table, published).breaking


BUMPED = BEFORE.replace("amount: int", "cents: int").replace("Spent)", "Spent, version=2)")
STEP = """
SPENT.upcast(1, lambda payload: {"cents": payload["amount"], **payload})
"""


def test_a_new_version_needs_the_step_to_it(table: Written) -> None:
    change = changed(table, BUMPED)
    assert change.breaking
    assert line(change).startswith("SPENT = Contract(")
    assert "@SPENT.upcasts(from_version=1)" in change.remedy
    assert "version=" not in change.remedy.replace("from_version=", "")
    assert not changed(table, BUMPED + STEP).breaking


def test_a_version_does_not_go_back_and_a_contract_does_not_vanish(table: Written) -> None:
    assert changed(table, BEFORE, before=BUMPED + STEP).breaking
    gone = changed(table, 'service = Service("till-service")\n')
    assert gone.breaking
    assert "till-service spoke it" in gone.what


def test_two_forms_of_one_version_cannot_be_locked(table: Written) -> None:
    two = 'OTHER = Contract("evt.credit.spent", Line)\n'
    body = BEFORE.replace("service =", two + "service =").replace("[SPENT]", "[SPENT, OTHER]")
    with pytest.raises(LockError, match="two forms of version 1"):
        ContractLock.of(table(body))


def test_who_begins_to_speak_a_contract_is_told(table: Written) -> None:
    body = BEFORE.replace('"till-service"', '"desk-service"')
    lock = ContractLock.of(table(BEFORE))
    found = only(compare_contracts(lock, table(body)))
    assert found.what == "desk-service publishes it now, till-service publishes it no more"
