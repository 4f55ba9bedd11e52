"""Which rows a repository may see, as conditions and options of its statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import ColumnElement, inspect
from sqlalchemy.orm import with_loader_criteria

from shared.database.base import Base, MerchantMixin, SoftDeleteMixin
from shared.database.repository.filters import Condition, Where, attribute_of, where
from shared.database.repository.loading import ONLY_ASKED_FOR
from shared.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from sqlalchemy.orm import InstrumentedAttribute, Mapper
    from sqlalchemy.orm.interfaces import ORMOption
    from sqlalchemy.sql.base import ExecutableOption


T = TypeVar("T", bound=Base)


@dataclass(frozen=True, slots=True)
class Scope(Generic[T]):
    """The rows of ``model``, of one tenant if it is named."""

    model: type[T]
    merchant_id: UUID | None = None

    def conditions(
        self,
        given: Iterable[Condition],
        filters: dict[str, Any],
        *,
        include_deleted: bool,
    ) -> list[ColumnElement[bool]]:
        """Return what the rows asked for must meet, beside `own`.

        Raises:
            ValidationError: an unknown column.
            TypeError: something given is not a condition.
        """
        conditions = self.own(include_deleted=include_deleted)
        for condition in (*given, where(**filters)) if filters else given:
            if isinstance(condition, Where):
                conditions.append(condition.on(self.model))
            elif isinstance(condition, ColumnElement):
                conditions.append(condition)
            else:
                raise TypeError(
                    f"{condition!r} is not a condition: give where(...) or an expression of "
                    "SQLAlchemy, or filters by keyword"
                )
        return conditions

    def own(self, *, include_deleted: bool) -> list[ColumnElement[bool]]:
        """Return what every row seen here must meet."""
        conditions: list[ColumnElement[bool]] = []
        if self.merchant_id is not None:
            conditions.append(attribute_of(self.model, "merchant_id") == self.merchant_id)
        if not include_deleted and issubclass(self.model, SoftDeleteMixin):
            conditions.append(self.model.is_deleted.is_(False))
        return conditions

    def related(
        self, given: Sequence[Condition] = (), *, include_deleted: bool
    ) -> list[ExecutableOption]:
        """Return options which keep the same from the rows of other models, joined or loaded."""
        options: list[ExecutableOption] = []
        if not self.mapper.relationships and all(isinstance(one, Where) for one in given):
            return options  # conditions by name reach no other model
        if not include_deleted:
            options.append(_NOT_DELETED)
        if self.merchant_id is not None:
            merchant_id = self.merchant_id
            options.append(
                with_loader_criteria(
                    MerchantMixin,
                    lambda model: model.merchant_id == merchant_id,
                    include_aliases=True,
                )
            )
        return options

    def loading(self, load: Sequence[ORMOption]) -> list[ExecutableOption]:
        """Return options which load these relationships and no other."""
        if not load and not self.mapper.relationships:
            return []
        return [*load, ONLY_ASKED_FOR]

    def order(self, names: str | Sequence[str]) -> list[tuple[InstrumentedAttribute[Any], bool]]:
        """Return the columns to order by, and whether descending; the primary key makes it total.

        Raises:
            ValidationError: an unknown column, or one named twice.
        """
        names = [names] if isinstance(names, str) else names
        order = [
            (attribute_of(self.model, name.removeprefix("-")), name.startswith("-"))
            for name in names
        ]
        named = [column.key for column, _ in order]
        for name in named:
            if named.count(name) > 1:
                raise ValidationError(f"order_by names {name} twice", field="order_by", value=name)
        for column in self.mapper.primary_key:
            key = self.mapper.get_property_by_column(column).key
            if key not in named:
                order.append((getattr(self.model, key), False))
        return order

    @property
    def mapper(self) -> Mapper[T]:
        """The mapper of the model."""
        return inspect(self.model)

    def identity(self, given: object) -> tuple[Any, ...]:
        """Return the primary key that is meant: a value, or a tuple for one of several columns.

        Raises:
            ValidationError: malformed.
        """
        columns = self.mapper.primary_key
        values = given if isinstance(given, tuple) else (given,)
        if len(values) != len(columns):
            names = ", ".join(self.mapper.get_property_by_column(c).key for c in columns)
            raise ValidationError(
                f"an id of {self.model.__name__} has {len(columns)} parts: {names}",
                field="id",
                value=given,
            )
        return tuple(
            self._typed(column.type.python_type, value)
            for column, value in zip(columns, values, strict=True)
        )

    def _typed(self, kind: type[Any], given: object) -> Any:
        if isinstance(given, kind) or not isinstance(given, str):
            return given
        try:
            return kind(given)
        except (TypeError, ValueError):
            raise ValidationError(
                f"not an id of {self.model.__name__}", field="id", value=given
            ) from None

    def foreign(self, row: object) -> bool:
        """Whether the row is another tenant's than the one worked for."""
        return (
            self.merchant_id is not None
            and isinstance(row, MerchantMixin)
            and row.merchant_id != self.merchant_id
        )

    def refuse_foreign(self, row: Base | None) -> None:
        """Raise unless the row may be touched here.

        Raises:
            ValidationError: it is another tenant's.
        """
        if row is not None and self.foreign(row):
            raise self.foreign_error(type(row))

    @staticmethod
    def foreign_error(model: type[Base]) -> ValidationError:
        """Return the error of touching a row of another tenant."""
        return ValidationError(
            f"this {model.__name__} belongs to another tenant", field="merchant_id"
        )

    def choose(self, given: Sequence[Condition], filters: dict[str, Any], verb: str) -> None:
        """Raise when a method that changes rows was told of none, and would change all.

        Raises:
            TypeError: no condition.
        """
        if not given and not filters:
            raise TypeError(
                f"which rows to {verb}? Give a condition; sqlalchemy.true() means every row"
            )


_NOT_DELETED = with_loader_criteria(
    SoftDeleteMixin, lambda model: model.is_deleted.is_(False), include_aliases=True
)
