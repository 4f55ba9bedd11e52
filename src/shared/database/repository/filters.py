"""Conditions on rows, said by name: `where`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, JSON, ColumnElement, and_, inspect, or_, true
from sqlalchemy.orm import CompositeProperty

from shared.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.orm import InstrumentedAttribute, Mapper

    from shared.database.base import Base


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions joined; made by `where`, combined with ``&``, ``|`` and ``~``."""

    filters: Mapping[str, Any]
    parts: Sequence[Where] = ()
    joined_by: str = "and"

    def __and__(self, other: Where) -> Where:
        return Where({}, (self, other))

    def __or__(self, other: Where) -> Where:
        return Where({}, (self, other), "or")

    def __invert__(self) -> Where:
        return Where({}, (self,), "not")

    def __bool__(self) -> bool:
        raise TypeError("conditions are joined with & | ~, not with and, or, not")

    def on(self, model: type[Base]) -> ColumnElement[bool]:
        """Return the SQL expression for rows of ``model``.

        Raises:
            ValidationError: the model has no such column, or the value cannot be compared with.
        """
        conditions = [_condition(model, name, value) for name, value in self.filters.items()]
        conditions += [part.on(model) for part in self.parts]
        match self.joined_by:
            case "or":
                return or_(*conditions)
            case "not":
                # NOT of NULL is NULL in SQL; here what does not match is the rest, whole.
                return and_(true(), *conditions).is_not(true())
            case _:
                return and_(true(), *conditions)


Condition = Where | ColumnElement[bool]
"""What the methods of `Repository` take to choose rows."""


def where(**filters: Any) -> Where:
    """Say which rows are meant: every filter given must hold.

    ``status="paid"`` is equality, a list, tuple or set means any of them, None means NULL. Behind
    the name and two underscores may stand a comparison:

    | comparison | holds for |
    | --- | --- |
    | ``ne`` | any other value, NULL too |
    | ``gt gte lt lte`` | greater, less |
    | ``between`` | a pair: from the first to the second, both included |
    | ``in``, ``not_in`` | one of these; none of these, or NULL |
    | ``null`` | NULL if True, anything else if False |
    | ``contains startswith endswith`` | text with this text in it, taken literally |
    | ``icontains istartswith iendswith iexact`` | the same in upper or lower case |
    | ``like ilike`` | a pattern of SQL: ``%`` and ``_`` mean what they do there |

    Combine with ``&``, ``|`` and ``~``: ``where(status="paid") | ~where(total__gt=0)``. ``~`` is
    the rest of the rows: those too for which SQL does not know, since a value is NULL.

    Nothing is checked before the model is known, so a wrong name is a ValidationError of the method
    that is given this.

    >>> rows = [Order(number=f"{n}", total=Money(n, "EUR")) for n in range(3)]
    >>> _ = await orders.insert_many(rows)
    >>> await orders.count(where(total_amount__between=(1, 2)) & ~where(number="2"))
    1
    >>> await orders.count(where(numbr="2"))
    ValidationError: Order has no column numbr: did you mean number?
    """
    return Where(filters)


def attribute_of(model: type[Base], name: str) -> InstrumentedAttribute[Any]:
    """Return the attribute of a column.

    Raises:
        ValidationError: there is none of this name; the message names the nearest.
    """
    mapper: Mapper[Any] = inspect(model)
    if name in mapper.column_attrs or name in mapper.composites:
        found: InstrumentedAttribute[Any] = getattr(model, name)
        return found
    known = sorted([*mapper.column_attrs.keys(), *mapper.composites.keys()])
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
    raise ValidationError(f"{model.__name__} has no column {name}: {hint}", field=name)


def _condition(model: type[Base], name: str, value: Any) -> ColumnElement[bool]:
    column_name, _, comparison = name.rpartition("__")
    if column_name and comparison in _COMPARISONS:
        return _COMPARISONS[comparison](_Operand(attribute_of(model, column_name), name), value)
    if column_name and column_name in inspect(model).column_attrs:
        known = ", ".join(sorted(_COMPARISONS))
        raise ValidationError(f"{comparison!r} is not a comparison; there are {known}", field=name)
    return _equal(_Operand(attribute_of(model, name), name), value)


@dataclass(frozen=True, slots=True)
class _Operand:
    attribute: InstrumentedAttribute[Any]
    name: str

    def refuse(self, expected: str, value: object) -> ValidationError:
        return ValidationError(f"{self.name} takes {expected}", field=self.name, value=value)


def _equal(operand: _Operand, value: Any) -> ColumnElement[bool]:
    attribute = operand.attribute
    if isinstance(attribute.property, CompositeProperty):
        same: ColumnElement[bool] = attribute == value
        return same
    any_of = isinstance(value, list | tuple | set | frozenset)
    if any_of and not isinstance(attribute.type, ARRAY | JSON):
        return _in(operand, value)
    return attribute.is_(None) if value is None else attribute == value


def _not_equal(operand: _Operand, value: Any) -> ColumnElement[bool]:
    if isinstance(operand.attribute.property, CompositeProperty):
        return _equal(operand, value).is_not(true())
    return operand.attribute.is_distinct_from(value)


def _in(operand: _Operand, value: Any) -> ColumnElement[bool]:
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise operand.refuse("a list, a tuple or a set", value)
    known = [item for item in value if item is not None]
    found = operand.attribute.in_(known)
    return found if len(known) == len(value) else found | operand.attribute.is_(None)


def _between(operand: _Operand, value: Any) -> ColumnElement[bool]:
    if not isinstance(value, list | tuple) or len(value) != 2:  # noqa: PLR2004 - two ends
        raise operand.refuse("a pair of values", value)
    return operand.attribute.between(*value)


def _null(operand: _Operand, value: Any) -> ColumnElement[bool]:
    if not isinstance(value, bool):
        raise operand.refuse("True or False", value)
    return operand.attribute.is_(None) if value else operand.attribute.is_not(None)


def _literal(method: str) -> Callable[[_Operand, Any], ColumnElement[bool]]:
    def compare(operand: _Operand, value: Any) -> ColumnElement[bool]:
        if not isinstance(value, str):
            raise operand.refuse("text", value)
        found: ColumnElement[bool] = getattr(operand.attribute, method)(value, autoescape=True)
        return found

    return compare


def _iexact(operand: _Operand, value: Any) -> ColumnElement[bool]:
    if not isinstance(value, str):
        raise operand.refuse("text", value)
    escaped = value.replace("/", "//").replace("%", "/%").replace("_", "/_")
    return operand.attribute.ilike(escaped, escape="/")


def _compare(
    operation: Callable[[Any, Any], ColumnElement[bool]],
) -> Callable[[_Operand, Any], ColumnElement[bool]]:
    def compare(operand: _Operand, value: Any) -> ColumnElement[bool]:
        if value is None:
            raise operand.refuse("a value: nothing is greater or less than NULL", value)
        return operation(operand.attribute, value)

    return compare


_COMPARISONS: dict[str, Callable[[_Operand, Any], ColumnElement[bool]]] = {
    "ne": _not_equal,
    "gt": _compare(lambda column, value: column > value),
    "gte": _compare(lambda column, value: column >= value),
    "lt": _compare(lambda column, value: column < value),
    "lte": _compare(lambda column, value: column <= value),
    "between": _between,
    "in": _in,
    "not_in": lambda operand, value: _in(operand, value).is_not(True),
    "null": _null,
    "like": lambda operand, value: operand.attribute.like(value),
    "ilike": lambda operand, value: operand.attribute.ilike(value),
    "contains": _literal("contains"),
    "startswith": _literal("startswith"),
    "endswith": _literal("endswith"),
    "icontains": _literal("icontains"),
    "istartswith": _literal("istartswith"),
    "iendswith": _literal("iendswith"),
    "iexact": _iexact,
}
