from __future__ import annotations

from typing import Any

from pydantic import BaseModel

import shared.mappers
from shared.mappers import BaseMapper


class CreateOrder(BaseModel):
    title: str


class UpdateOrder(BaseModel):
    title: str | None = None
    note: str | None = "none"


class OrderResponse(BaseModel):
    title: str


class OrderMapper(BaseMapper[dict[str, Any], CreateOrder, UpdateOrder, OrderResponse]):
    """Says what cannot be guessed, and no more."""

    def create_to_model(self, create_schema: CreateOrder, **kwargs: Any) -> dict[str, Any]:
        return {**create_schema.model_dump(), **kwargs}

    def model_to_response(self, model: dict[str, Any]) -> OrderResponse:
        return OrderResponse(title=model["title"])


mapper = OrderMapper()


def test_the_public_names() -> None:
    assert shared.mappers.__all__ == ["BaseMapper", "CRUDMapper"]


def test_a_model_is_made_with_what_the_caller_does_not_choose() -> None:
    made = mapper.create_to_model(CreateOrder(title="a"), merchant_id="m")
    assert made == {"title": "a", "merchant_id": "m"}


def test_many_models_are_mapped_in_order_without_a_method_of_ones_own() -> None:
    assert mapper.models_to_responses([{"title": "a"}, {"title": "b"}]) == [
        OrderResponse(title="a"),
        OrderResponse(title="b"),
    ]
    assert mapper.models_to_responses([]) == []


def test_an_update_holds_what_was_sent_and_none_only_if_it_was_sent() -> None:
    assert mapper.update_to_dict(UpdateOrder()) == {}
    assert mapper.update_to_dict(UpdateOrder(title=None)) == {"title": None}
    assert mapper.update_to_dict(UpdateOrder(title="a")) == {"title": "a"}
