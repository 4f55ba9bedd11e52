"""How long anybody still waits."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.context.deadline import format_timeout, parse_timeout, remaining_seconds, within


def left() -> float:
    remaining = remaining_seconds()
    assert remaining is not None
    return remaining


def test_without_a_deadline_nobody_hurries() -> None:
    assert remaining_seconds() is None
    with within(None) as deadline:
        assert remaining_seconds() is deadline.remaining_seconds is None


def test_an_inner_deadline_is_never_later_than_the_outer() -> None:
    with within(100):
        with within(1000):
            assert left() <= 100
        with within(None):
            assert left() <= 100
        with within(10):
            assert left() <= 10
        assert 10 < left() <= 100
    assert remaining_seconds() is None


def test_time_that_is_up_is_zero() -> None:
    with within(-5):
        assert left() == 0


async def test_a_deadline_that_is_lifted_is_lifted_for_all_who_have_it() -> None:
    with within(100) as deadline:
        told, lifted = asyncio.Event(), asyncio.Event()

        async def work() -> float | None:
            assert left() > 0
            told.set()
            await lifted.wait()
            return remaining_seconds()

        task = asyncio.create_task(work())
        await told.wait()
        deadline.lift()
        lifted.set()
        assert await task is None


@given(st.integers(0, 999_999_999))
def test_what_is_written_is_read(milliseconds: int) -> None:
    text = format_timeout(milliseconds / 1000)
    assert abs(int(text) - milliseconds) <= 1
    assert parse_timeout(text) == int(text) / 1000


def test_a_very_long_wait_can_still_be_told() -> None:
    assert parse_timeout(format_timeout(1e12)) == 999_999.999


@pytest.mark.parametrize(
    "value", [None, "", "soon", "-1", "1.5", "1e3", "+5", "1234567890", "\u0661"]
)
def test_a_header_that_is_something_else_is_none(value: str | None) -> None:
    assert parse_timeout(value) is None
