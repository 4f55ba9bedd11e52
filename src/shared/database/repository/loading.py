"""Relationships are loaded when the query says so, not by one more query a row.

This reaches below SQLAlchemy's public face, for the sake of one message: `raiseload("*")` would
do, but for saying what to write, and for leaving alone what a model declares as loaded eagerly.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import RelationshipProperty, strategies, strategy_options

_STRATEGY = "only_asked_for"
_LAZY = frozenset({"select", True, "raise", "raise_on_sql"})

# Its name in SQLAlchemy 2.1, and in 2.0.
_LazyLoader: Any = getattr(strategies, "_LazyLoader", None) or getattr(strategies, "LazyLoader")  # noqa: B009


@RelationshipProperty.strategy_for(lazy=_STRATEGY)
class _OnlyAskedFor(_LazyLoader):  # type: ignore[misc]
    """Raises where a lazy relationship would query; loads what the model declares as eager."""

    def __init__(self, parent: RelationshipProperty[Any], strategy_key: Any) -> None:
        super().__init__(parent, strategy_key)
        self._raise_always = True

    def _invoke_raise_load(self, _state: object, _passive: object, _lazy: str) -> None:
        name = f"{self.parent_property.parent.class_.__name__}.{self.key}"
        raise InvalidRequestError(
            f"{name} was not loaded with the row, and a query for each row is what makes lists "
            f"slow: ask for it with load=[selectinload({name})]"
        )

    def setup_query(self, *args: Any, **kwargs: Any) -> None:
        if self.parent_property.lazy not in _LAZY:
            self.parent_property.strategy.setup_query(*args, **kwargs)

    def create_row_processor(self, *args: Any, **kwargs: Any) -> None:
        if self.parent_property.lazy in _LAZY:
            super().create_row_processor(*args, **kwargs)
        else:
            self.parent_property.strategy.create_row_processor(*args, **kwargs)


# The rule for every relationship that no other option names, at any depth.
ONLY_ASKED_FOR = strategy_options._WildcardLoad()._set_relationship_strategy(  # noqa: SLF001
    strategy_options._DEFAULT_TOKEN,  # type: ignore[attr-defined,arg-type]  # noqa: SLF001
    {"lazy": _STRATEGY},
)
"""The option of a statement whose rows must not load relationships by themselves."""
