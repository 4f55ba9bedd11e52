from __future__ import annotations

import inspect
import json
import pickle
from datetime import date
from typing import Any, ClassVar
from uuid import UUID

import pytest

from shared.errors import (
    CircuitOpenError,
    DatabaseError,
    GlamBaseError,
    InfrastructureError,
    NotFoundError,
    RateLimitedError,
    RequestTimeoutError,
    ValidationError,
)

ORDER_ID = UUID("0190a6c8-0000-7000-8000-000000000001")


def test_zero_and_false_are_kept_and_none_is_left_out() -> None:
    error = ValidationError("No", field="", value=0, flag=False, items=[], nothing=None)
    assert error.details == {"field": "", "value": 0, "flag": False, "items": []}
    assert RateLimitedError(limit=0, retry_after=0).details == {"limit": 0, "retry_after": 0}
    assert NotFoundError("No", details={"kept": 0, "left_out": None}).details == {"kept": 0}


def test_unknown_keywords_land_in_the_details() -> None:
    error = NotFoundError("No", resource="order", shop="acme")
    assert error.details == {"resource": "order", "shop": "acme"}
    assert not hasattr(error, "shop")


def test_details_by_name_win_over_the_mapping_which_is_not_touched() -> None:
    assert NotFoundError("No", details={"resource": "order"}, resource=None).resource == "order"
    assert InfrastructureError("No", details={"retryable": False}).retryable is False
    given = {"resource": "old", "more": 1}
    assert NotFoundError("No", details=given, resource="new").details == {
        "resource": "new",
        "more": 1,
    }
    assert given == {"resource": "old", "more": 1}


def test_infrastructure_says_whether_to_try_again() -> None:
    assert InfrastructureError("Down").details == {"retryable": True}
    error = DatabaseError("Down", service="postgres", retryable=False)
    assert error.details == {"service": "postgres", "retryable": False}
    assert error.retryable is False


def test_an_open_circuit_is_never_retryable() -> None:
    error = CircuitOpenError("Open", service_name="shopify", failure_count=0, retryable=True)
    assert error.retryable is False
    assert error.details == {"service_name": "shopify", "failure_count": 0, "retryable": False}


def test_code_and_status_can_be_chosen_for_one_error() -> None:
    error = NotFoundError("Gone", code="ORDER_GONE", status=410)
    assert (error.code, error.status) == ("ORDER_GONE", 410)
    assert (NotFoundError.code, NotFoundError.status) == ("NOT_FOUND", 404)


def test_the_cause_is_chained() -> None:
    cause = KeyError("x")
    error = DatabaseError("Down", cause=cause)
    assert error.cause is error.__cause__ is cause


def test_an_error_as_a_dict() -> None:
    assert GlamBaseError("Oh").to_dict() == {"code": "INTERNAL_ERROR", "message": "Oh"}
    assert RequestTimeoutError("Slow", timeout_seconds=0.5).to_dict() == {
        "code": "TIMEOUT",
        "message": "Slow",
        "details": {"timeout_seconds": 0.5, "retryable": True},
    }


def test_details_are_json_from_the_start() -> None:
    error = NotFoundError("No", resource_id=ORDER_ID, details={"seen": {date(2026, 1, 2)}})
    assert error.details == {"resource_id": str(ORDER_ID), "seen": ["2026-01-02"]}
    assert error.resource_id is ORDER_ID


def test_the_dict_is_json_even_if_details_were_added_later() -> None:
    error = NotFoundError("\ud800")
    error.details["when"] = object
    assert json.dumps(error.to_dict(), ensure_ascii=False).encode()
    error.to_dict()["details"]["more"] = 1
    assert "more" not in error.details


def test_an_error_without_a_message_is_refused() -> None:
    with pytest.raises(TypeError, match="NotFoundError has no default message"):
        NotFoundError()
    required = inspect.signature(NotFoundError).parameters["message"]
    assert required.default is inspect.Parameter.empty


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DatabaseError("Down", table="orders", retryable=False)))
    assert error.to_dict() == DatabaseError("Down", table="orders", retryable=False).to_dict()
    assert (error.table, error.retryable) == ("orders", False)


def test_a_class_declares_only_what_is_its_own() -> None:
    class ParcelLostError(NotFoundError):
        code = "PARCEL_LOST"
        message = "The parcel is lost"
        parcel_id: str | None = None
        carrier: str = "acme"
        unit = "not annotated, so no detail"
        limit: ClassVar[int] = 3

    error = ParcelLostError(parcel_id="p-1", resource="parcel")
    assert error.to_dict() == {
        "code": "PARCEL_LOST",
        "message": "The parcel is lost",
        "details": {"parcel_id": "p-1", "resource": "parcel", "carrier": "acme"},
    }
    assert list(inspect.signature(ParcelLostError).parameters) == [
        "message",
        "code",
        "status",
        "details",
        "cause",
        "resource",
        "resource_id",
        "parcel_id",
        "carrier",
        "extra",
    ]


def test_a_class_with_a_constructor_of_its_own_still_works() -> None:
    class OrderError(NotFoundError):
        code: str = "ORDER_ERROR"
        order_id: str

        def __init__(self, order_id: str, **kwargs: Any) -> None:
            self.order_id = order_id
            super().__init__(f"No order {order_id}", details={"order_id": order_id}, **kwargs)

    error = OrderError("7", resource="order")
    assert error.order_id == "7"
    assert error.details == {"order_id": "7", "resource": "order"}
    assert error.code == "ORDER_ERROR"
    assert next(iter(inspect.signature(OrderError).parameters)) == "order_id"
