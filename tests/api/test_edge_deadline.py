"""A service gives up when its caller has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import BackgroundTasks, FastAPI

from shared.context.deadline import TIMEOUT_HEADER, remaining_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx


async def test_work_ends_when_the_caller_no_longer_waits(
    make_app: Any, client: Callable[..., httpx.AsyncClient]
) -> None:
    app, cancelled = FastAPI(), asyncio.Event()

    @app.get("/")
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with client(make_app(app, request_timeout_seconds=60)) as http:
        answer = await http.get("/", headers={TIMEOUT_HEADER: "20"})
    assert answer.status_code == 504
    assert answer.json()["error"]["details"]["timeout_seconds"] == 0.02
    assert cancelled.is_set()


@pytest.mark.parametrize(
    ("own", "callers", "at_most"),
    [(60, "1000000", 60), (60, "5000", 5), (None, "5000", 5), (60, "soon", 60), (60, None, 60)],
)
async def test_the_one_with_less_patience_decides(
    make_app: Any,
    client: Callable[..., httpx.AsyncClient],
    own: float | None,
    callers: str | None,
    at_most: float,
) -> None:
    app = FastAPI()
    app.add_api_route("/", remaining_seconds, response_model=float)
    headers = {} if callers is None else {TIMEOUT_HEADER: callers}
    async with client(make_app(app, request_timeout_seconds=own)) as http:
        assert at_most - 5 < (await http.get("/", headers=headers)).json() <= at_most


async def test_once_the_answer_is_out_nothing_hurries(
    make_app: Any, client: Callable[..., httpx.AsyncClient]
) -> None:
    app, left = FastAPI(), list[float | None]()

    @app.get("/")
    async def work(after: BackgroundTasks) -> None:
        left.append(remaining_seconds())
        after.add_task(lambda: left.append(remaining_seconds()))

    async with client(make_app(app)) as http:
        await http.get("/", headers={TIMEOUT_HEADER: "60000"})
    assert left[0] is not None
    assert left[1] is None
