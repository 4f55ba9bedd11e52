"""The AsyncAPI document: rules of the specification, and its own validator where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from pydantic import BaseModel, Field, RootModel
from pydantic_core import to_jsonable_python

from shared.contracts import asyncapi_document
from shared.events import Contract, Envelope
from shared.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

T = TypeVar("T")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: "Page[T] | None" = None


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    friend: "Pet | None" = None


class Pet(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind", description="which")]


class Tree(BaseModel):
    """A tree with all that grows on it.

    And more that the summary leaves out.
    """

    below: list["Tree"] = []
    above: Annotated["Tree | None", Field(description="up", deprecated=True)] = None
    color: Annotated[Color, Field(description="its color")] = Color.RED
    price: Decimal = Field(ge=0, max_digits=8, decimal_places=2)
    point: tuple[int, str]
    keyed: dict[Color, Cat] = {}
    matched: dict[Annotated[str, Field(pattern="^a")], int] = {}
    anything: Any = None
    when: datetime
    took: timedelta
    ids: set[UUID]
    title: str = "x"
    properties: dict[str, Any] = {"title": "no words", "prefixItems": [1]}


class Names(RootModel[list[Cat]]):
    pass


class OddEnvelope(BaseModel):
    odd: str


OddEnvelope.__name__ = OddEnvelope.__qualname__ = "Envelope"


def other_tree() -> type[BaseModel]:
    class Tree(BaseModel):
        other: int

    return Tree


TREE = Contract("evt.credit.tree", Tree)


def hard() -> Service:
    service = Service(
        "hard-service",
        publishes=[
            TREE,
            Contract("evt.credit.tree", other_tree(), version=2),
            Contract("evt.credit.cats", Page[Cat]),
            Contract("evt.credit.numbers", Page[int]),
            Contract("evt.credit.names", Names),
            Contract("evt.credit.envelope", OddEnvelope),
        ],
    )

    @service.handles(Contract("evt.credit.pet", Pet))
    async def see(pet: Pet) -> None: ...

    return service


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from walk(part)


def resolve(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def payload_validator(document: dict[str, Any], message: str) -> Draft7Validator:
    schema = document["components"]["messages"][message]["payload"]
    return Draft7Validator({**schema, "components": document["components"]})


# AsyncAPI 3.0.0 as far as these documents go.
REFERENCE = {
    "type": "object",
    "required": ["$ref"],
    "additionalProperties": False,
    "properties": {},
}
REFERENCE["properties"] = {"$ref": {"type": "string", "pattern": "^#/"}}
KEYS = {"pattern": r"^[A-Za-z0-9._-]+$"}
DOCUMENT = {
    "type": "object",
    "required": ["asyncapi", "info"],
    "additionalProperties": False,
    "properties": {
        "asyncapi": {"const": "3.0.0"},
        "info": {"type": "object", "required": ["title", "version"]},
        "defaultContentType": {"type": "string"},
        "channels": {
            "propertyNames": KEYS,
            "additionalProperties": {
                "type": "object",
                "required": ["address", "messages"],
                "properties": {"messages": {"additionalProperties": REFERENCE}},
            },
        },
        "operations": {
            "propertyNames": KEYS,
            "additionalProperties": {
                "type": "object",
                "required": ["action", "channel"],
                "properties": {
                    "action": {"enum": ["send", "receive"]},
                    "channel": REFERENCE,
                    "messages": {"type": "array", "items": REFERENCE},
                },
            },
        },
        "components": {
            "type": "object",
            "properties": {
                "messages": {
                    "propertyNames": KEYS,
                    "additionalProperties": {
                        "type": "object",
                        "required": ["payload", "headers", "contentType", "correlationId"],
                        "properties": {
                            "correlationId": {
                                "required": ["location"],
                                "properties": {
                                    "location": {"pattern": r"^\$message\.(header|payload)#"}
                                },
                            }
                        },
                    },
                },
                "schemas": {"propertyNames": KEYS, "additionalProperties": {"type": "object"}},
            },
        },
    },
}


@pytest.mark.parametrize("cloudevents", [False, True])
def test_the_document_keeps_the_rules(cloudevents: bool) -> None:
    document = asyncapi_document([hard()], cloudevents=cloudevents)
    Draft7Validator(DOCUMENT).validate(document)
    for node in walk([document["channels"], document["operations"]]):
        if "$ref" in node:
            resolve(document, node["$ref"])
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        assert all(
            each["$ref"].startswith(f"{channel}/messages/") for each in operation["messages"]
        )
    for schema in document["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
    for message in document["components"]["messages"].values():
        Draft7Validator.check_schema(message["payload"])
        Draft7Validator.check_schema(message["headers"])
    assert "$defs" not in json.dumps(document)


def test_what_is_sent_is_valid_by_the_document_and_what_is_not_is_refused() -> None:
    document = asyncapi_document([hard()])
    tree = Tree.model_validate(
        {
            "price": "1.50",
            "point": [1, "a"],
            "when": "2026-01-01T00:00:00Z",
            "took": 5,
            "ids": ["0190163d-8694-739b-aea5-966c26f8ad91"],
            "keyed": {"blue": {"lives": 9}},
            "below": [],
        }
    )
    envelope = Envelope.create(TREE, tree, source_service="hard-service").to_dict()
    validator = payload_validator(document, "evt.credit.tree.v1")
    validator.validate(envelope)
    for fault in (
        {**envelope, "subject": "evt.credit.pet"},
        {**envelope, "payload": {**envelope["payload"], "point": ["a", 1]}},
        {**envelope, "payload": {**envelope["payload"], "below": [{}]}},
        {name: value for name, value in envelope.items() if name != "event_id"},
    ):
        assert not validator.is_valid(to_jsonable_python(fault))


def test_types_of_the_same_name_stay_two() -> None:
    document = asyncapi_document([hard()])
    messages = document["components"]["messages"]

    def fields(message: str) -> set[str]:
        reference = messages[message]["payload"]["allOf"][1]["properties"]["payload"]["$ref"]
        return set(resolve(document, reference).get("properties", ()))

    assert "other" in fields("evt.credit.tree.v2")
    assert "point" in fields("evt.credit.tree.v1")
    assert fields("evt.credit.envelope.v1") == {"odd"}
    assert messages["evt.credit.tree.v1"]["x-deprecated"]
    assert "x-deprecated" not in messages["evt.credit.tree.v2"]
    assert messages["evt.credit.tree.v1"]["summary"].startswith("A tree with all that grows on it.")


def test_services_send_and_receive_on_the_channel_of_the_subject() -> None:
    document = asyncapi_document([hard()])
    sends = document["operations"]["hard-service.send.evt.credit.cats.v1"]
    assert (sends["action"], sends["channel"]) == ("send", {"$ref": "#/channels/evt.credit.cats"})
    receives = document["operations"]["hard-service.receive.see"]
    assert receives["action"] == "receive"
    assert receives["bindings"]["nats"]["queue"] == "hard-service-see"
    assert document["channels"]["evt.credit.pet"]["address"] == "evt.credit.pet"


ASYNCAPI = shutil.which(os.environ.get("ASYNCAPI_CLI", "asyncapi"))


@pytest.mark.skipif(ASYNCAPI is None, reason="npm install -g @asyncapi/cli, or name ASYNCAPI_CLI")
def test_its_own_validator_takes_the_document(tmp_path: Path) -> None:
    def validate(document: dict[str, Any]) -> int:
        file = tmp_path / "asyncapi.json"
        file.write_text(json.dumps(document))
        return subprocess.run(
            [str(ASYNCAPI), "validate", str(file)],
            env={**os.environ, "ASYNCAPI_METRICS": "false"},
            capture_output=True,
            check=False,
        ).returncode

    document = asyncapi_document([hard()], cloudevents=True)
    assert validate(document) == 0
    document["operations"]["hard-service.receive.see"]["action"] = "hear"
    assert validate(document) != 0
