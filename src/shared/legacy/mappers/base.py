"""A mapper whose two directions are written by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterable

ModelT = TypeVar("ModelT")
CreateT = TypeVar("CreateT", bound=BaseModel)
UpdateT = TypeVar("UpdateT", bound=BaseModel)
ResponseT = TypeVar("ResponseT", bound=BaseModel)


class BaseMapper(ABC, Generic[ModelT, CreateT, UpdateT, ResponseT]):
    """Turns create schemas into models, and models into response schemas."""

    __slots__ = ()

    @abstractmethod
    def create_to_model(self, create_schema: CreateT, **kwargs: Any) -> ModelT:
        """Return a new model; ``kwargs`` holds what the caller does not choose, like the tenant."""

    @abstractmethod
    def model_to_response(self, model: ModelT) -> ResponseT:
        """Return what the caller sees of ``model``."""

    def models_to_responses(self, models: Iterable[ModelT]) -> list[ResponseT]:
        """Return the response of each model, in order."""
        return [self.model_to_response(model) for model in models]

    def update_to_dict(self, update_schema: UpdateT) -> dict[str, Any]:
        """Return the fields that the caller sent: ``None`` only where it was sent as such."""
        return update_schema.model_dump(exclude_unset=True)
