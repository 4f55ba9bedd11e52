"""A mapper for models and schemas that name their fields alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy import inspect
from sqlalchemy.orm import DeclarativeBase

if TYPE_CHECKING:
    from collections.abc import Iterable

ModelT = TypeVar("ModelT", bound=DeclarativeBase)
InT = TypeVar("InT", bound=BaseModel)
PatchT = TypeVar("PatchT", bound=BaseModel | None)
OutT = TypeVar("OutT", bound=BaseModel)


class CRUDMapper(Generic[ModelT, InT, PatchT, OutT]):
    """Maps by name; a subclass says between which classes.

    class OrderMapper(CRUDMapper[Order, OrderIn, OrderPatch, OrderOut]):
        model_cls = Order
        out_schema = OrderOut
    """

    model_cls: type[ModelT]
    out_schema: type[OutT]

    def to_model(self, dto: InT, **extra: Any) -> ModelT:
        """Return a new model of ``dto``'s fields, defaults included; ``extra`` wins over them.

        Raises:
            TypeError: a field that the model does not have.
        """
        return self.model_cls(**{**dto.model_dump(), **extra})

    def patch_model(self, obj: ModelT, patch: PatchT) -> None:
        """Write the fields that were sent to ``obj``, an explicit ``None`` too; flush nothing.

        Raises:
            TypeError: a field that the model does not have; nothing is written then.
        """
        if patch is None:
            return
        values = patch.model_dump(exclude_unset=True)
        unknown = sorted(name for name in values if not hasattr(type(obj), name))
        if unknown:
            raise TypeError(f"{type(obj).__name__} has no {', '.join(unknown)}")
        for name, value in values.items():
            setattr(obj, name, value)

    def to_out(self, obj: ModelT) -> OutT:
        """Return what the caller sees of ``obj``."""
        return self.out_schema.model_validate(obj, from_attributes=True)

    def list_to_out(self, objs: Iterable[ModelT]) -> list[OutT]:
        """Return what the caller sees of each, in order."""
        return [self.to_out(obj) for obj in objs]

    @staticmethod
    def is_dirty(obj: ModelT) -> bool:
        """Say whether ``obj`` differs from its row, or has none; loads nothing.

        A value set back to what it was is no difference.
        """
        state = inspect(obj)
        return not state.has_identity or any(
            attribute.history.has_changes() for attribute in state.attrs
        )
