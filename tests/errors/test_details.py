from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
from types import MappingProxyType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from shared.config import redaction
from shared.errors.details import json_safe


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Pair(Enum):
    PAIR = (1, Decimal("2.50"))


class Model(BaseModel):
    when: datetime
    secret: SecretStr


@dataclass
class Point:
    x: int
    parent: object = None


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no words")


ID = UUID("0190a6c8-0000-7000-8000-000000000001")
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (False, False),
        (0, 0),
        ("", ""),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (ID, str(ID)),
        (Decimal("1.10"), "1.10"),
        (WHEN, "2026-01-02T03:04:05+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Pair.PAIR, [1, "2.50"]),
        (b"ab\xff", "ab\\xff"),
        ("a\ud800b", "a?b"),
        (PurePosixPath("/tmp/x"), "/tmp/x"),
        (SecretStr("hunter2"), "**********"),
        ((1, {2}), [1, [2]]),
        ({"b", "a"}, ["a", "b"]),
        (
            MappingProxyType({ID: ID, 1: 2, None: 0, Colour.RED: 1}),
            {str(ID): str(ID), "1": 2, "None": 0, "red": 1},
        ),
        (
            Model(when=WHEN, secret=SecretStr("x")),
            {"when": "2026-01-02T03:04:05Z", "secret": "**********"},
        ),
        (Point(1, Point(2)), {"x": 1, "parent": {"x": 2, "parent": None}}),
        (ValueError("bad"), "bad"),
        (Unprintable(), "<Unprintable that cannot be shown>"),
        (int, "<class 'int'>"),
        (Point, f"<class '{__name__}.Point'>"),
        (Model, f"<class '{__name__}.Model'>"),
    ],
)
def test_a_value_becomes_json(value: object, expected: object) -> None:
    safe = json_safe(value)
    assert safe == expected
    assert type(safe) is type(expected)


def test_what_contains_itself_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert json.dumps(json_safe(loop))
    point = Point(1)
    point.parent = point
    assert json.dumps(json_safe(point))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.binary(),
    st.uuids(),
    st.datetimes(),
    st.timedeltas(),
    st.decimals(),
    st.complex_numbers(),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@given(anything)
def test_anything_can_be_sent_and_is_stable(value: object) -> None:
    safe = json_safe(value)
    assert json.dumps(safe, allow_nan=False, ensure_ascii=False).encode()
    assert json_safe(safe) == safe


def test_secrets_are_hidden_by_their_name_and_by_their_look_where_that_is_asked() -> None:
    value = {"password": "hunter2", "where": ["nats://me:hunter3@host"], "deep": {"er": {"x": 1}}}
    assert json_safe(value)["password"] == "hunter2"
    assert json_safe(value, depth=2, redaction=redaction) == {
        "password": redaction.MASK,
        "where": [f"nats://me:{redaction.MASK}@host"],
        "deep": {"er": "..."},
    }
