"""Contracts: versions, schemas, and who speaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field

from shared.contracts import describe
from shared.events import Contract, Envelope, UpcastError
from shared.events.credit import ORDER_UPDATED
from shared.platform.declared import CONTRACTS
from shared.service import Service

if TYPE_CHECKING:
    from collections.abc import Mapping


class Spent(BaseModel):
    amount: int
    currency: str
    reason: str


def spent(version: int = 3) -> Contract[Spent]:
    return Contract("evt.credit.spent", Spent, version=version)


def sent(payload: Mapping[str, Any], version: object) -> Envelope:
    return Envelope.from_dict(
        {
            "event_id": "e-1",
            "subject": "evt.credit.spent",
            "timestamp": None,
            "metadata": {"version": version},
            "payload": payload,
        }
    )


def with_steps() -> Contract[Spent]:
    contract = spent()

    @contract.upcasts(from_version=1)
    def cents(payload: dict[str, Any]) -> dict[str, Any]:
        payload["amount"] = payload.pop("euros") * 100
        return {**payload, "currency": "EUR"}

    contract.upcast(2, lambda payload: {**payload, "reason": "order"})
    return contract


def test_an_old_payload_is_taken_through_every_version() -> None:
    envelope = sent({"euros": 3}, "1")
    assert with_steps().read(envelope) == Spent(amount=300, currency="EUR", reason="order")
    assert envelope.payload == {"euros": 3}
    in_between = sent({"amount": 5, "currency": "USD"}, 2)
    assert with_steps().read(in_between) == Spent(amount=5, currency="USD", reason="order")


@pytest.mark.parametrize("version", ["3", 3, None, "", "1.0.0", "0", "\u0661"])
def test_its_own_version_and_what_is_no_version_are_read_as_they_are(version: object) -> None:
    payload = {"amount": 1, "currency": "EUR", "reason": "gift"}
    assert with_steps().read(sent(payload, version)).reason == "gift"


def test_a_newer_payload_is_read_if_it_fits() -> None:
    newer = {"amount": 1, "currency": "EUR", "reason": "gift", "by": "ada"}
    assert with_steps().read(sent(newer, 4)).amount == 1
    with pytest.raises(UpcastError, match="sent in version 4, and this reader knows version 3"):
        with_steps().read(sent({"total": 1}, 4))


def test_a_missing_step_is_told_with_the_line_to_add() -> None:
    contract = spent()
    contract.upcast(1, lambda payload: payload)
    with pytest.raises(UpcastError, match=r"upcasts\(from_version=2\)"):
        contract.read(sent({"euros": 3}, 1))


def test_a_step_is_taken_once_and_leads_somewhere() -> None:
    contract = with_steps()
    with pytest.raises(ValueError, match=r"has a step from version 1 already: .*cents"):
        contract.upcast(1, lambda payload: payload)
    for version in (0, 3):
        with pytest.raises(ValueError, match="a step can start at 1 to 2"):
            contract.upcast(version, lambda payload: payload)
    with pytest.raises(ValueError, match="version is 0: it must be 1 or more"):
        spent(version=0)


def test_contracts_are_equal_by_what_is_spoken_not_by_their_steps() -> None:
    assert spent() == with_steps()
    assert hash(spent()) == hash(with_steps())


class Told(BaseModel):
    """Somebody spent credit."""

    reason: str = Field(description="Why")
    currency: str = Field(title="Money")
    amount: int


class Nullable(BaseModel):
    amount: int | None
    currency: str
    reason: str


def test_the_hash_of_a_schema_is_that_of_its_form() -> None:
    form = spent().schema_hash
    assert len(form) == 64
    assert Contract("evt.credit.spent", Told).schema_hash == form
    assert Contract("evt.credit.spent", Nullable).schema_hash != form
    assert spent().schema()["properties"]["amount"]["type"] == "integer"


class Named(BaseModel):
    title: str
    description: str


class Untitled(BaseModel):
    description: str


def test_a_field_called_title_is_a_field() -> None:
    one, other = (Contract("evt.credit.named", model) for model in (Named, Untitled))
    assert one.schema_hash != other.schema_hash


def test_the_table_says_who_speaks_and_who_hears() -> None:
    own = spent()
    webhook = Service("webhook-service", publishes=[ORDER_UPDATED])
    credit = Service("credit-service", publishes=[own])

    @credit.handles(ORDER_UPDATED)
    async def debit(order: ORDER_UPDATED.payload) -> None:  # type: ignore[name-defined]
        ...

    table = describe([webhook, credit], declared=CONTRACTS)
    rows = {row.contract: row for row in table.rows}
    assert set(rows) == {*CONTRACTS, own}
    order = rows[ORDER_UPDATED]
    assert (order.producers, order.consumers) == (("webhook-service",), ("credit-service",))
    assert (order.subject, order.stream) == ("evt.order.updated", "WEBHOOKS")
    assert (rows[own].payload, rows[own].version) == ("Spent", 3)
    assert table.disputed == ()
    other = Service("other-service", publishes=[spent(version=2)])
    assert describe([credit, other]).disputed == ("evt.credit.spent",)


def test_the_version_may_come_in_the_header_alone() -> None:
    envelope = sent({"amount": 5, "currency": "USD"}, 2).to_dict()
    del envelope["metadata"]
    body = Envelope.from_dict(envelope).encode()
    read = Envelope.from_message(body, {"glam-schema-version": "2"})
    assert with_steps().read(read) == Spent(amount=5, currency="USD", reason="order")
    envelope["metadata"] = {"version": "1"}
    read = Envelope.from_message(
        Envelope.from_dict(envelope).encode(), {"Glam-Schema-Version": "2"}
    )
    assert read.metadata["version"] == "1"


def test_the_places_of_a_tuple_are_part_of_its_form() -> None:
    class One(BaseModel):
        both: tuple[int, str]

    class Other(BaseModel):
        both: tuple[str, int]

    one, other = (Contract("evt.credit.spent", each) for each in (One, Other))
    assert one.schema_hash != other.schema_hash
