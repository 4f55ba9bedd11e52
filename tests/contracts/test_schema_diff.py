"""Whether what one form lets be written, another lets be read."""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic_core import to_json

from shared.contracts import find_breaks
from shared.platform.declared import CONTRACTS

REQUIRED = ...


def schema(kind: Any, default: Any = REQUIRED) -> dict[str, Any]:
    return create_model("Form", x=(kind, default)).model_json_schema()


def told(written: dict[str, Any], read: dict[str, Any]) -> list[str]:
    return [str(each) for each in find_breaks(written=written, read=read)]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Defaulted(BaseModel):
    kind: Literal["cat"] = "cat"


class Bird(BaseModel):
    kind: Literal["bird"]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    lives: int = 9


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    lives: int = 9


class Tree(BaseModel):
    value: int
    below: list[Tree] = []


class TextTree(BaseModel):
    value: str
    below: list[TextTree] = []


class DeepTree(BaseModel):
    """Breaks only below: what is met again inside of itself must not hide it."""

    value: int
    below: list[TextTree] = []


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]

# Written, read, and what is said of it; each line is a rule. None is: it fits.
RULES: list[tuple[Any, Any, str | None]] = [
    (int, float, None),
    (float, int, "x may be number, and what is read is integer"),
    (int, str, "x may be integer, and what is read is string"),
    (int, int | None, None),
    (int | None, int, "x may be null, and what is read is integer"),
    (int | str, str | int | bool, None),
    (int | str, int, "x may be string, and what is read is integer"),
    (int, Any, None),
    (Any, int, "x may be anything, and what is read is integer"),
    (bool, int, "x may be boolean, and what is read is integer"),
    (Literal["a"], Literal["a", "b"], None),
    (Literal["a", "b"], Literal["a"], 'x may be "b", and what is read is "a"'),
    (Literal["a"], str, None),
    (str, Literal["a"], 'x may be string, and what is read is "a"'),
    (Literal[5], Annotated[int, Field(ge=5, multiple_of=5)], None),
    (Literal[4], Annotated[int, Field(multiple_of=5)], "x may be 4, and what is read is integer"),
    (Literal[True], Literal[1], "x may be true, and what is read is 1"),
    (UUID, str, None),
    (str, UUID, "x may not be of format uuid"),
    (int, Annotated[int, Field(ge=0)], "x may be below 0"),
    (int, Annotated[int, Field(lt=9)], "x may be 9"),
    (int, Annotated[int, Field(multiple_of=2)], "x may be no multiple of 2"),
    (Annotated[int, Field(multiple_of=4)], Annotated[int, Field(multiple_of=2)], None),
    (Annotated[int, Field(gt=0)], Annotated[int, Field(ge=0)], None),
    (Annotated[int, Field(ge=0)], Annotated[int, Field(gt=0)], "x may be 0"),
    (str, Annotated[str, Field(min_length=1)], "x may be shorter than 1"),
    (Annotated[str, Field(max_length=9)], Annotated[str, Field(max_length=10)], None),
    (
        Annotated[str, Field(max_length=10)],
        Annotated[str, Field(max_length=9)],
        "x may be longer than 9",
    ),
    (str, Annotated[str, Field(pattern="^a")], "x may not match ^a"),
    (Literal["ab"], Annotated[str, Field(pattern="^a")], None),
    (list[int], list[float], None),
    (list[int], list[str], "x[] may be integer, and what is read is string"),
    (list[int], set[int], "x may hold an item twice"),
    (list[int], Annotated[list[int], Field(max_length=3)], "x may have more items than 3"),
    (tuple[int, str], list[int | str], None),
    (tuple[int, str], tuple[str, str], "x[] may be integer, and what is read is string"),
    (tuple[int, int], tuple[int], "x may have more items than 1"),
    (dict[str, int], dict[str, Any], None),
    (dict[str, Any], dict[str, int], "x{} may be anything, and what is read is integer"),
    (dict[str, int], dict[Literal["a"], int], 'x{key} may be string, and what is read is "a"'),
    (dict[Literal["a"], int], dict[Literal["a", "b"], int], None),
    (dict[str, int], Closed, "x{} is written, and nothing is read here"),
    (dict[str, str], Closed, "x.lives may be string, and what is read is integer"),
    (Cat, dict[str, str | int], None),
    (Cat, Closed, "x.kind is written, and unknown fields are refused"),
    (Open, Closed, "x{} is written, and nothing is read here"),
    (Closed, Open, None),
    (Closed, Cat, "x.kind is required, and may be missing"),
    (Cat, Pet, None),
    (Pet, Cat | Dog, None),
    (Pet, Cat | Dog | Bird, None),
    (Pet, Cat, 'x.kind may be "dog", and what is read is "cat"'),
    (Defaulted, Pet, "x.kind is required, and may be missing"),
    (Tree, Tree, None),
    (Tree, TextTree, "x.value may be integer, and what is read is string"),
    (Tree, DeepTree, "x.below[].value may be integer, and what is read is string"),
]


@pytest.mark.parametrize(("written", "read", "broken"), RULES)
def test_rule(written: Any, read: Any, broken: str | None) -> None:
    found = told(schema(written), schema(read))
    assert (broken in found) if broken is not None else (found == [])


def test_a_field_that_may_be_missing_breaks_who_requires_it() -> None:
    assert told(schema(int, 3), schema(int)) == ["x is required, and may be missing"]
    assert told(schema(int), schema(int, 3)) == []
    assert told(create_model("Form").model_json_schema(), schema(int, 3)) == []


def test_every_declared_contract_reads_itself() -> None:
    for contract in CONTRACTS:
        assert find_breaks(written=contract.schema(), read=contract.form()) == ()


def test_a_word_that_is_not_known_is_never_called_compatible() -> None:
    ruled = {"type": "string", "not": {"const": "a"}}
    assert find_breaks(written={"type": "string"}, read=ruled)
    assert not find_breaks(written=ruled, read=ruled)
    assert find_breaks(written=ruled, read={"type": "string", "contentSchema": {"$ref": "#"}})


# -- any pair of forms ---------------------------------------------------------------------------


class Form:
    """An annotation, and the documents that it allows."""

    def __init__(self, kind: Any, documents: st.SearchStrategy[Any]) -> None:
        self.kind, self.documents = kind, documents


def whole(low: int, high: int) -> Form:
    return Form(Annotated[int, Field(ge=low, le=high)], st.integers(low, high))


def text(low: int, high: int) -> Form:
    kind = Annotated[str, Field(min_length=low, max_length=high)]
    return Form(kind, st.text("abc", min_size=low, max_size=high))


def chosen(values: set[Any]) -> Form:
    return Form(Literal[tuple(sorted(values))], st.sampled_from(sorted(values)))


small = st.integers(0, 3)
bounds = st.tuples(small, small).map(sorted)
leaves = st.one_of(
    bounds.map(lambda pair: whole(*pair)),
    bounds.map(lambda pair: text(*pair)),
    st.sets(st.sampled_from("abc"), min_size=1).map(chosen),
    st.sets(st.integers(0, 3), min_size=1).map(chosen),
    st.just(Form(int, st.integers(-5, 5))),
    st.just(Form(float, st.floats(-5, 5) | st.integers(-5, 5))),
    st.just(Form(str, st.text("abc", max_size=5))),
    st.just(Form(bool, st.booleans())),
    st.just(Form(NoneType, st.none())),  # which can be on both sides of |, and None cannot
)
Pair = tuple[Form, Form]


def lists(pair: Pair, sizes: list[int | None]) -> Pair:
    one, other = (
        Form(
            Annotated[list[each.kind], Field(max_length=size)],  # type: ignore[name-defined]
            st.lists(each.documents, max_size=3 if size is None else size),
        )
        for each, size in zip(pair, sizes, strict=True)
    )
    return one, other


def mapping(form: Form) -> Form:
    keys = st.sampled_from(["a", "b", "z"])
    return Form(dict[str, form.kind], st.dictionaries(keys, form.documents))  # type: ignore[name-defined]


def either(one: Form, other: Form) -> Form:
    return Form(one.kind | other.kind, one.documents | other.documents)


def model(fields: dict[str, tuple[Form, bool]], extra: Any) -> Form:
    kinds: dict[str, Any] = {
        name: (form.kind, REQUIRED if required else None)
        for name, (form, required) in fields.items()
    }
    made = create_model("Form", __config__=ConfigDict(extra=extra), **kinds)
    return Form(
        made,
        st.fixed_dictionaries(
            {name: form.documents for name, (form, required) in fields.items() if required},
            optional={name: form.documents for name, (form, must) in fields.items() if not must},
        ),
    )


@st.composite
def models(draw: st.DrawFn, pairs: st.SearchStrategy[Pair]) -> Pair:
    ours: dict[str, tuple[Form, bool]] = {}
    theirs: dict[str, tuple[Form, bool]] = {}
    for name in ("a", "b"):
        one, other = draw(pairs)
        if draw(st.integers(0, 3)):
            ours[name] = (one, draw(st.booleans()))
        if draw(st.integers(0, 3)):
            theirs[name] = (other, draw(st.booleans()))
    extras = st.sampled_from(["ignore", "ignore", "forbid"])
    return model(ours, draw(extras)), model(theirs, draw(extras))


pairs: st.SearchStrategy[Pair] = st.recursive(
    st.tuples(leaves, leaves) | leaves.map(lambda form: (form, form)),
    lambda inner: st.one_of(
        st.builds(lists, inner, st.lists(st.none() | small, min_size=2, max_size=2)),
        inner.map(lambda pair: (mapping(pair[0]), mapping(pair[1]))),
        st.tuples(inner, leaves).map(lambda t: (t[0][0], either(t[1], t[0][1]))),
        models(inner),
    ),
    max_leaves=6,
)


@given(pairs, st.data())
def test_what_is_called_compatible_is_read(pair: Pair, data: st.DataObject) -> None:
    ours, theirs = (create_model("Outer", x=(form.kind, REQUIRED)) for form in pair)
    for written, read, form in ((ours, theirs, pair[0]), (theirs, ours, pair[1])):
        if find_breaks(written=written.model_json_schema(), read=read.model_json_schema()):
            continue
        document = {"x": data.draw(form.documents)}
        written.model_validate_json(to_json(document))
        read.model_validate_json(to_json(document))
        Draft202012Validator(read.model_json_schema()).validate(document)
