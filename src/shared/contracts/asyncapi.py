"""The AsyncAPI 3.0 document of services: who sends and receives what, on which subject.

One channel for each subject, one message for each of its versions, one operation for each contract
that a service publishes and each handler that it has. Schemas are written in the words of JSON
Schema draft 7, on which those of AsyncAPI rest; pydantic's are 2020-12.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic.json_schema import models_json_schema

from shared.contracts.table import describe
from shared.events import cloudevents
from shared.events import headers as header
from shared.events.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel

    from shared.contracts.table import ContractRow, DeclaredService
    from shared.events.contract import Contract

_JSON = "application/json"
_BINDING = "0.1.0"  # of AsyncAPI's binding for NATS
_WILDCARDS = {"*": ("token{}", "One token of the subject."), ">": ("rest", "One token or more.")}
_SCHEMAS = "#/components/schemas/"

_HEADERS: dict[str, tuple[str, bool]] = {
    header.MESSAGE_ID: ("By which the stream drops a second message of the same id.", True),
    header.CONTENT_TYPE: (f"{_JSON}, unless it is a CloudEvent in structured mode.", True),
    header.TRACEPARENT: ("The sender's span (W3C Trace Context).", False),
    header.TRACESTATE: ("What tracing systems add to it (W3C Trace Context).", False),
    header.CORRELATION_ID: ("The same for all that one request set off.", False),
    header.SCHEMA_VERSION: ("Version of the payload's form.", False),
    header.TENANT: ("The tenant whom the message is about.", False),
}


def asyncapi_document(
    services: Sequence[DeclaredService],
    *,
    declared: Iterable[Contract[Any]] = (),
    title: str | None = None,
    version: str = "1.0.0",
    cloudevents: bool = False,
) -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of the services.

    Args:
        services: whose operations it holds.
        declared: contracts to describe besides, though none of the services names them.
        title: of the document; by default the services' names.
        version: of the document.
        cloudevents: describe each message as a CloudEvent too, in structured mode.

    """
    rows = describe(services, declared=declared).rows
    speakers = ", ".join(sorted(service.name for service in services))
    names, schemas = _schemas(rows)
    messages: dict[str, dict[str, Any]] = {}
    channels: dict[str, dict[str, Any]] = {}
    ids: dict[Contract[Any], list[str]] = {}
    newest: dict[str, int] = defaultdict(int)
    for row in rows:
        newest[row.subject] = max(newest[row.subject], row.version)
    for row in rows:
        forms = {_unique(f"{row.subject}.v{row.version}", messages): _message(row, names)}
        if cloudevents and row.contract.codec.enveloped:
            name = _unique(f"{next(iter(forms))}.cloudevent", messages)
            forms[name] = _cloudevent(row, names)
        for form in forms.values():
            if row.version < newest[row.subject]:
                form["x-deprecated"] = True
                form["summary"] += f" Version {newest[row.subject]} follows it."
        messages.update(forms)
        ids[row.contract] = list(forms)
        channel = channels.setdefault(row.subject, _channel(row))
        channel["messages"].update({name: _to("components/messages", name) for name in forms})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title or speakers or "Contracts",
            "version": version,
        },
        "defaultContentType": _JSON,
        "channels": channels,
        "operations": _operations(services, ids),
        "components": {"messages": messages, "schemas": schemas},
    }


def _operations(
    services: Iterable[DeclaredService], ids: Mapping[Contract[Any], list[str]]
) -> dict[str, dict[str, Any]]:
    operations: dict[str, dict[str, Any]] = {}
    for service in sorted(services, key=lambda each: each.name):
        for contract in service.publishes:
            name = f"{service.name}.send.{contract.subject}.v{contract.version}"
            operations[name] = {
                **_operation("send", service, contract, ids[contract]),
                "summary": f"{service.name} sends {contract.payload.__name__}.",
            }
        for handler in service.handlers:
            operations[f"{service.name}.receive.{handler.name}"] = {
                **_operation("receive", service, handler.contract, ids[handler.contract]),
                "summary": f"{service.name} receives {handler.contract.payload.__name__}.",
                # Replicas share a durable consumer as they would share a queue group.
                "bindings": {
                    "nats": {
                        "queue": handler.durable(service.name),
                        "bindingVersion": _BINDING,
                    }
                },
            }
    return operations


def _operation(
    action: str, service: DeclaredService, contract: Contract[Any], ids: Iterable[str]
) -> dict[str, Any]:
    channel = contract.subject
    return {
        "action": action,
        "channel": _to("channels", channel),
        "messages": [_to(f"channels/{quote(channel, safe='*')}/messages", name) for name in ids],
        "tags": [{"name": service.name}],
    }


def _channel(row: ContractRow) -> dict[str, Any]:
    kind = "A request to do something." if row.contract.is_command else "Something happened."
    address, parameters = _address(row.subject)
    channel: dict[str, Any] = {
        "address": address,
        "description": kind,
        "messages": {},
        "bindings": {"nats": {}},
    }
    if parameters:
        channel["parameters"] = parameters
    if row.stream is not None:
        channel["x-jetstream-stream"] = row.stream
    return channel


def _address(subject: str) -> tuple[str, dict[str, Any]]:
    """Return a subject as a channel's address, a parameter for each of its wildcards."""
    tokens, parameters = subject.split("."), {}
    for place, token in enumerate(tokens):
        if token in _WILDCARDS:
            name, what = _WILDCARDS[token]
            name = name.format(place + 1)
            tokens[place], parameters[name] = f"{{{name}}}", {"description": what}
    return ".".join(tokens), parameters


def _message(row: ContractRow, names: Mapping[type[BaseModel], str]) -> dict[str, Any]:
    contract = row.contract
    payload: dict[str, Any] = {"$ref": _SCHEMAS + names[contract.payload]}
    subject = {"const": contract.subject} if contract.is_literal else {}
    about = {"subject": {"type": "string", **subject}, "payload": payload}
    return {
        "name": f"{contract.payload.__name__}.v{contract.version}",
        "title": contract.payload.__name__,
        "summary": _summary(contract.payload),
        "contentType": contract.codec.content_type,
        "headers": _headers(required=contract.codec.enveloped),
        "correlationId": {"location": f"$message.header#/{header.CORRELATION_ID}"},
        "payload": {
            "allOf": [
                {"$ref": _SCHEMAS + names[Envelope]},
                {"type": "object", "properties": about},
            ]
        }
        if contract.codec.enveloped
        else payload,
        "bindings": {"nats": {}},
        "x-version": contract.version,
        "x-reads-versions": list(contract.readable_versions),
    }


def _cloudevent(row: ContractRow, names: Mapping[type[BaseModel], str]) -> dict[str, Any]:
    contract = row.contract
    text = {"type": "string", "minLength": 1}
    subject = {"const": contract.subject} if contract.is_literal else {}
    return {
        **_message(row, names),
        "name": f"{contract.payload.__name__}.v{contract.version}.cloudevent",
        "contentType": cloudevents.STRUCTURED,
        "summary": f"The same as a CloudEvent. {_summary(contract.payload)}",
        "payload": {
            "type": "object",
            "required": ["specversion", "id", "source", "type", "data"],
            "properties": {
                "specversion": {"type": "string", "const": "1.0"},
                "id": text,
                "source": text,
                "type": {"type": "string", **subject},
                "time": {"type": "string", "format": "date-time"},
                "datacontenttype": {"type": "string", "const": _JSON},
                "data": {"$ref": _SCHEMAS + names[contract.payload]},
            },
        },
    }


def _headers(*, required: bool) -> dict[str, Any]:
    # Who sends without an envelope may do so without headers.
    needed = [name for name, (_, always) in _HEADERS.items() if always and required]
    return {
        "type": "object",
        **({"required": needed} if needed else {}),
        "properties": {
            name: {"type": "string", "description": what} for name, (what, _) in _HEADERS.items()
        },
    }


def _summary(model: type[BaseModel]) -> str:
    # A docstring of its own: what a model inherits speaks of another.
    first = (model.__dict__.get("__doc__") or "").strip().partition("\n\n")[0]
    return " ".join(first.split()) or f"{model.__name__}."


def _to(where: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/{where}/{quote(name, safe='*')}"}


def _unique(name: str, taken: Mapping[str, object]) -> str:
    """Return a name that is not taken: two types may claim one version of a subject."""
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique


# -- schemas -------------------------------------------------------------------------------------


def _schemas(
    rows: Iterable[ContractRow],
) -> tuple[dict[type[BaseModel], str], dict[str, Any]]:
    """Return the component of each payload, and all components, those of nested models too."""
    payloads: list[type[BaseModel]] = [row.contract.payload for row in rows]
    payloads.append(Envelope)
    models = list(dict.fromkeys(payloads))
    references, document = models_json_schema(
        [(model, "validation") for model in models], ref_template=_SCHEMAS + "{model}"
    )
    schemas = {name: _draft7(schema) for name, schema in document.get("$defs", {}).items()}
    names: dict[type[BaseModel], str] = {}
    for model in models:
        reference = references[model, "validation"].get("$ref")
        if (
            reference is None
        ):  # pydantic gives no name to what is not an object, such as a root model
            name = _unique(model.__name__, schemas)
            schemas[name] = _draft7(references[model, "validation"])
            names[model] = name
        else:
            names[model] = reference.removeprefix(_SCHEMAS)
    return names, dict(sorted(schemas.items()))


def _draft7(schema: Any, *, names: bool = False) -> Any:
    """Return a schema of 2020-12 in the words of draft 7; `names` are a mapping from fields."""
    if isinstance(schema, list):
        return [_draft7(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {name: _draft7(part) for name, part in schema.items()}
    words: dict[str, Any] = {}
    for word, value in schema.items():
        if word == "prefixItems":
            words["items"] = _draft7(value)
        elif word == "items" and "prefixItems" in schema:
            words["additionalItems"] = _draft7(value)
        elif word == "discriminator" and isinstance(value, dict):
            words[word] = value["propertyName"]  # AsyncAPI's names the field alone
        elif word in {"const", "default", "enum", "examples"}:
            words[word] = value
        else:
            words[word] = _draft7(value, names=word in {"properties", "patternProperties"})
    if "$ref" in words and len(words) > 1:  # beside a reference, draft 7 sees nothing
        return {"allOf": [{"$ref": words.pop("$ref")}], **words}
    return words
