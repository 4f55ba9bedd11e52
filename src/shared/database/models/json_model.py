"""Columns that hold pydantic models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from pydantic_core import to_json
from sqlalchemy import TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB

from shared.errors import DatabaseError, ValidationError

if TYPE_CHECKING:
    from sqlalchemy import Dialect


M = TypeVar("M", bound=BaseModel)


class JsonModel(TypeDecorator[M], Generic[M]):
    """JSONB that is a pydantic model in Python: ``mapped_column(JsonModel(Address))``.

    It is validated when it is written and when it is read. The model has to be frozen: nothing
    watches what happens inside of it, so a change is another model, assigned to the attribute
    (``row.address = row.address.model_copy(update=...)``). Lists and dicts inside of it can still
    be changed in place, unseen; declare tuples.

    >>> class Address(BaseModel, frozen=True):
    ...     city: str
    >>> class Parcel(Base, UUIDv7Mixin):
    ...     __tablename__ = "parcels"
    ...     address: Mapped[Address] = mapped_column(JsonModel(Address))

    Args:
        model: with ``frozen=True`` in its ``model_config``.

    Raises:
        TypeError: the model is not frozen.
        ValidationError: on writing, a value that is neither such a model nor fit to become one.
        DatabaseError: on reading, what is stored does not fit the model.
    """

    impl = JSONB(none_as_null=True)
    cache_ok = True

    def __init__(self, model: type[M]) -> None:
        if not model.model_config.get("frozen"):
            raise TypeError(
                f"{model.__name__} must be frozen, or changes inside of it would not be saved: "
                "model_config = ConfigDict(frozen=True)"
            )
        super().__init__()
        self.model = model

    @property
    def python_type(self) -> type[M]:
        """The model."""
        return self.model

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Validate and write out what goes to the database."""
        del dialect
        if value is None:
            return None
        try:
            # An instance may have come by model_construct or from a subclass: it is checked too.
            plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
            return self.model.model_validate_json(to_json(plain)).model_dump(mode="json")
        except PydanticError as error:
            raise ValidationError(
                f"the value is not a valid {self.model.__name__}",
                validation_errors=[
                    {
                        "field": ".".join(map(str, one["loc"])),
                        "message": one["msg"],
                        "type": one["type"],
                    }
                    for one in error.errors(include_url=False, include_input=False)
                ],
            ) from error

    def process_result_value(self, value: Any, dialect: Dialect) -> M | None:
        """Validate what comes from the database."""
        del dialect
        if value is None:
            return None
        try:
            return self.model.model_validate_json(to_json(value))
        except PydanticError as error:
            places = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors()}))
            raise DatabaseError(
                f"what is stored is not a valid {self.model.__name__}: {places}",
                operation=self.model.__name__,
                retryable=False,
            ) from error
