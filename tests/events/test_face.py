from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import shared.events
from shared.events import Contract, base, mappers
from shared.legacy.events import wrapper
from shared.platform import streams as platform_streams

EVENTS = [
    "CONVENTION",
    "ENVELOPE",
    "JSON",
    "SERVICE_STREAM_MAP",
    "Codec",
    "Contract",
    "Decoded",
    "DomainEventPublisher",
    "DomainEventSubscriber",
    "Envelope",
    "EnvelopeError",
    "EventContext",
    "EventContextManager",
    "EventPayload",
    "EventWrapper",
    "StreamDefinition",
    "StreamError",
    "StreamTable",
    "Streams",
    "UpcastError",
    "context_from_message",
    "get_stream_for_service",
    "get_stream_from_subject",
    "get_stream_subjects",
]


def loaded_by(statement: str) -> set[str]:
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(result.stdout))


def test_the_face_is_frozen() -> None:
    assert shared.events.__all__ == EVENTS
    assert set(dir(shared.events)) >= set(EVENTS)


@pytest.mark.parametrize("leaf", ["catalog", "credit", "notification", "scheduler"])
def test_a_leaf_hands_on_all_of_its_types(leaf: str) -> None:
    face = importlib.import_module(f"shared.events.{leaf}")
    home = importlib.import_module(f"shared.platform.{leaf}")
    types = importlib.import_module(f"shared.events.{leaf}.types")
    own = {
        name
        for name, value in vars(home).items()
        if isinstance(value, Contract)
        # pydantic puts the classes it makes, such as "EventWrapper[Recipient]", here as well.
        or (getattr(value, "__module__", None) == home.__name__ and name.isidentifier())
    }
    assert own
    assert all(getattr(face, name) is getattr(types, name) is vars(home)[name] for name in own)


def test_the_old_paths_hand_on_the_same_objects() -> None:
    assert base.Streams is platform_streams.Streams
    assert base.EventWrapper is wrapper.EventWrapper
    assert base.TData is wrapper.TData
    assert mappers.SERVICE_STREAM_MAP is platform_streams.SERVICE_STREAM_MAP
    assert mappers.get_stream_subjects is platform_streams.get_stream_subjects


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'shared\.events' has no attribute 'Event'"):
        shared.events.Event  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    ["import shared.events", "from shared.platform.declared import CONTRACTS"],
)
def test_importing_loads_no_floor_above_and_no_server_s_library(statement: str) -> None:
    loaded = loaded_by(statement)
    roots = {name.split(".")[0] for name in loaded}
    floors = {".".join(name.split(".")[:2]) for name in loaded if name.startswith("shared.")}
    assert "shared.events" in floors
    assert floors <= {
        "shared._lazy",
        "shared.context",
        "shared.errors",
        "shared.events",
        "shared.legacy",
        "shared.platform",
    }
    assert ("shared.platform" in floors) == ("platform" in statement)
    assert roots.isdisjoint({"fastapi", "starlette", "sqlalchemy", "nats", "yaml", "structlog"})


def test_importing_the_face_does_not_load_the_product_s_vocabulary() -> None:
    loaded = loaded_by("import shared.events")
    leaves = {"catalog", "credit", "notification", "scheduler"}
    assert loaded.isdisjoint(
        {f"shared.{home}.{x}" for x in leaves for home in ("events", "platform")}
    )
