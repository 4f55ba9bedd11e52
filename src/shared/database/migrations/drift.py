"""Differences of models and schema in words, and which statements lose rows."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["flattened", "loses_rows", "told"]


def flattened(differences: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Alembic's differences one by one: it keeps those of one column in a list of their own."""
    found: list[tuple[Any, ...]] = []
    for difference in differences:
        found += difference if isinstance(difference, list) else [difference]
    return found


def told(difference: tuple[Any, ...]) -> str:
    """Say a difference of Alembic's in words: what the models have, then what the schema has."""
    kind, *rest = difference
    if kind in {"add_table", "remove_table"}:
        return f"table {rest[0].name} is missing"
    if kind == "add_column":
        return f"column {rest[1]}.{rest[2].name} is missing"
    if kind == "remove_column":
        return f"column {rest[1]}.{rest[2].name} is in the schema and in no model"
    if kind.startswith("modify_"):
        _schema, table, column, _existing, here, wanted = rest
        what = kind.removeprefix("modify_")
        if what == "nullable":
            here, wanted = ("NULL" if allowed else "NOT NULL" for allowed in (here, wanted))
        return f"column {table}.{column}: {what} is {here!s} and {wanted!s} in the model"
    if kind.startswith(("add_", "remove_")):
        verb, _, what = kind.partition("_")
        item = rest[0]
        table = getattr(item, "table", None)
        columns = ", ".join(column.name for column in getattr(item, "columns", ()))
        name = getattr(item, "name", None)
        missing = "is missing" if verb == "add" else "is in the schema and in no model"
        what = {"fk": "foreign key", "constraint": "constraint"}.get(what, what)
        return f"{what} {name} of {getattr(table, 'name', None)} ({columns}) {missing}"
    return str(difference)


def loses_rows(tokens: tuple[str, ...]) -> bool:
    """Whether a statement drops a table or column, or deletes rows."""
    start = tokens[:2]
    if start in {("drop", "table"), ("drop", "schema"), ("delete", "from")}:
        return True
    if tokens[:1] == ("truncate",):
        return True
    return start == ("alter", "table") and any(
        word == "drop" and following not in {"constraint", "default", "not", "identity"}
        for word, following in pairwise(tokens)
    )
