from __future__ import annotations

from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shared.idempotency
from shared.idempotency import generate_idempotency_key, idempotency_key
from shared.utils import idempotency_key_generator

ID = UUID("0190a6c8-0000-7000-8000-000000000001")
part_lists = st.lists(st.text(min_size=1) | st.integers() | st.uuids(), min_size=1)


def test_the_public_names() -> None:
    assert shared.idempotency.__all__ == ["generate_idempotency_key", "idempotency_key"]


def test_old_is_new() -> None:
    assert idempotency_key_generator.generate_idempotency_key is generate_idempotency_key


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("SHOPIFY", "ORDER", "123456"), "SHOPIFY_ORDER_123456"),
        (("STRIPE", "PAYMENT", "pi_abc123"), "STRIPE_PAYMENT_pi_abc123"),
        (("SHOPIFY", "ORDER", "123", "TESTSTORE"), "SHOPIFY_ORDER_123_TESTSTORE"),
        (
            ("shop-ify", "order.paid", "a-B.c", "my-store.eu"),
            "SHOP_IFY_ORDER_PAID_a-B.c_MY_STORE_EU",
        ),
        (("SHOPIFY", "ORDER", 0), "SHOPIFY_ORDER_0"),
        (("SHOPIFY", "ORDER", ID), f"SHOPIFY_ORDER_{ID}"),
    ],
)
def test_the_documented_form_holds_to_the_letter(arguments: tuple[str, str, str], key: str) -> None:
    assert generate_idempotency_key(*arguments) == key


def test_the_documented_form_can_collide_and_the_safe_one_does_not() -> None:
    one, other = ("A", "B_C", "1"), ("A_B", "C", "1")
    assert generate_idempotency_key(*one) == generate_idempotency_key(*other)
    assert idempotency_key(*one) != idempotency_key(*other)


def test_a_safe_key_can_be_read() -> None:
    assert idempotency_key("credit", "debit", 123456, ID) == f"credit:debit:123456:{ID}"


def test_parts_are_compared_by_their_text() -> None:
    assert idempotency_key("order", 7, ID) == idempotency_key("order", "7", str(ID))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a:b", "c"), ("a", "b:c")),
        (("a:b",), ("a", "b")),
        (("a:b",), ("a%3Ab",)),
        (("ä",), ("%C3%A4",)),
    ],
)
def test_no_separator_or_escape_inside_a_part_makes_a_collision(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    assert idempotency_key(*one) != idempotency_key(*other)


@given(part_lists)
def test_the_parts_can_be_read_back_so_no_two_lists_share_a_key(
    parts: list[str | int | UUID],
) -> None:
    key = idempotency_key(*parts)
    assert [unquote(part) for part in key.split(":")] == [str(part) for part in parts]


@given(part_lists)
def test_a_key_fits_into_a_header(parts: list[str | int | UUID]) -> None:
    key = idempotency_key(*parts)
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key


@pytest.mark.parametrize("parts", [(), ("",), ("order", "")])
def test_a_key_that_would_belong_to_everybody_is_refused(parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="part"):
        idempotency_key(*parts)


def test_an_id_that_is_still_missing_is_refused() -> None:
    with pytest.raises(TypeError, match="None"):
        idempotency_key("order", None)  # type: ignore[arg-type]
