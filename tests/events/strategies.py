"""Values of any declared type, drawn from its annotations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, get_args, get_origin

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

# No deadline: a busy machine is no fault.
PROOF = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30)), timezone(timedelta(0))])
AWARE = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=ZONES)  # noqa: DTZ001
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)

_KNOWN: dict[Any, st.SearchStrategy[Any]] = {
    Any: JSON,
    dict[str, Any]: OBJECTS,
    list[dict[str, Any]]: st.lists(OBJECTS, max_size=3),
    float: st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    Decimal: st.decimals(0, 10**9, places=2),
    datetime: AWARE,
    AwareDatetime: AWARE,
}


def values(model: type[BaseModel], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any instance of a model; fields with a default may be left out."""
    fields = {name: _field(info) for name, info in model.model_fields.items()} | given
    required = {n: value for n, value in fields.items() if model.model_fields[n].is_required()}
    optional = {n: value for n, value in fields.items() if n not in required}
    return st.fixed_dictionaries(required, optional=optional).map(model.model_validate)


def _field(info: FieldInfo) -> st.SearchStrategy[Any]:
    if any("pattern" in getattr(rule, "__dict__", {}) for rule in info.metadata):
        return st.sampled_from(["EUR", "USD", "JPY"])
    bounds = {
        bound: getattr(rule, name)
        for rule in info.metadata
        for name, bound in (("ge", "min_value"), ("le", "max_value"))
        if hasattr(rule, name)
    }
    return _annotation(info.annotation, bounds)


def _annotation(annotation: Any, bounds: dict[str, int]) -> st.SearchStrategy[Any]:
    arguments = get_args(annotation)
    if type(None) in arguments:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return st.none() | _annotation(inner, bounds)
    if annotation in _KNOWN:
        return _KNOWN[annotation]
    if annotation is int:
        return st.integers(**bounds)
    if get_origin(annotation) is list:
        return st.lists(_annotation(arguments[0], {}), max_size=3)
    if hasattr(annotation, "model_fields"):
        return values(annotation)
    return st.from_type(annotation)
