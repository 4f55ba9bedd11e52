from __future__ import annotations

import json
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.api import ApiResponse, ErrorDetail, Links, Meta, Pagination

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAMES = TEXT.filter(lambda name: name not in {"", "page", "limit", "cls", "base_url", "pages"})


def query(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def numbers(links: Links) -> dict[str, int]:
    return {
        name: int(dict(query(url))["page"])
        for name, url in links.model_dump().items()
        if url is not None
    }


@given(
    page=st.integers(1, 2000),
    limit=st.integers(1, 1000),
    total=st.integers(0, 10_000),
    params=st.dictionaries(NAMES, TEXT, max_size=4),
    kept=st.dictionaries(NAMES, TEXT, max_size=4),
)
def test_every_link_leads_to_a_page_that_can_be_asked_for(
    page: int, limit: int, total: int, params: dict[str, str], kept: dict[str, str]
) -> None:
    base = str(pydantic.AnyUrl("http://shop/orders")) + "?" + pydantic_query(kept)
    place = Pagination.create(page, limit, total)
    links = Links.create_paginated(base, page, limit, place.pages, **params)
    found = numbers(links)
    last = max(place.pages, 1)

    assert place.pages == len(range(0, total, limit))
    assert found["self"] == page
    assert found["first"] == 1
    assert found["last"] == last
    assert place.has_next == ("next" in found) == (page < last)
    assert place.has_previous == ("previous" in found) == (page > 1)
    if place.has_next:
        assert found["next"] == page + 1
    if place.has_previous:
        assert found["previous"] == min(page - 1, last)
    for url in links.model_dump().values():
        pairs = [pair for pair in query(url) if pair[0] != "page"]
        assert dict(pairs) == {"limit": str(limit)} | kept | params
        assert len(pairs) == len(dict(pairs)), "a parameter is doubled"
        assert url.isascii()


def pydantic_query(params: dict[str, str]) -> str:
    from urllib.parse import urlencode

    return urlencode(params)


def test_the_lists_own_query_stays_and_paging_is_not_doubled() -> None:
    links = Links.create_paginated(
        "https://shop/orders?status=open&page=9&limit=5&tag=a&tag=b#top", 2, 10, 3, status="paid"
    )
    assert links.self == "https://shop/orders?page=2&limit=10&tag=a&tag=b&status=paid"


def test_values_are_written_as_a_query_reads_them() -> None:
    class Colour(Enum):
        RED = "red & green"

    links = Links.create_paginated(
        "/orders",
        1,
        10,
        1,
        colour=Colour.RED,
        open=True,
        since=date(2026, 1, 2),
        tags=["a", None, "b"],
        absent=None,
        empty="",
    )
    assert query(links.self) == [
        ("page", "1"),
        ("limit", "10"),
        ("colour", "red & green"),
        ("open", "true"),
        ("since", "2026-01-02"),
        ("tags", "a"),
        ("tags", "b"),
        ("empty", ""),
    ]


@pytest.mark.parametrize(
    ("page", "limit", "total"), [(0, 10, 1), (1, 0, 1), (1, 1001, 1), (1, 1, -1)]
)
def test_numbers_out_of_bounds_are_refused(page: int, limit: int, total: int) -> None:
    with pytest.raises(pydantic.ValidationError):
        Pagination.create(page, limit, total)


@pytest.mark.parametrize(
    ("envelope", "parts"),
    [
        (ApiResponse[int](data=1, meta=Meta(request_id="r")), {"data", "meta"}),
        (ApiResponse[None](meta=Meta(request_id="r")), {"data", "meta"}),
        (
            ApiResponse[int](error=ErrorDetail(code="C", message="m"), meta=Meta(request_id="r")),
            {"error", "meta"},
        ),
    ],
)
def test_absent_parts_are_left_out(envelope: ApiResponse[Any], parts: set[str]) -> None:
    written = json.loads(envelope.model_dump_json())
    assert set(written) == set(envelope.model_dump()) == parts
    assert set(written["meta"]) == {"request_id", "timestamp"}
    if "error" in written:
        assert set(written["error"]) == {"code", "message"}


def test_a_null_inside_the_data_stays() -> None:
    envelope = ApiResponse[dict[str, None]](data={"a": None}, meta=Meta(request_id="r"))
    assert json.loads(envelope.model_dump_json())["data"] == {"a": None}


@given(st.datetimes())
def test_a_timestamp_always_has_an_offset(naive: datetime) -> None:
    written = json.loads(Meta(request_id="r", timestamp=naive).model_dump_json())["timestamp"]
    assert datetime.fromisoformat(written) == naive.replace(tzinfo=UTC)


def test_the_moment_of_an_answer_is_the_present_one_in_utc() -> None:
    before = datetime.now(UTC)
    meta = Meta(request_id="r")
    written = datetime.fromisoformat(json.loads(meta.model_dump_json())["timestamp"])
    assert written.utcoffset() == UTC.utcoffset(None)
    assert before <= written == meta.timestamp <= datetime.now(UTC)
