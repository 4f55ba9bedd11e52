import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import bind_session, current_session, detached


async def test_none_outside_of_a_unit_of_work() -> None:
    assert current_session() is None


async def test_the_inner_one_hides_the_outer_one_until_it_ends() -> None:
    outer, inner = AsyncSession(), AsyncSession()
    with bind_session(outer):
        with bind_session(inner):
            assert current_session() is inner
        assert current_session() is outer
    assert current_session() is None


async def test_a_task_started_inside_is_refused() -> None:
    async def child() -> None:
        current_session()

    with bind_session(AsyncSession()), pytest.raises(RuntimeError, match="another one in this"):
        await asyncio.create_task(child())


async def test_a_task_that_outlives_the_unit_of_work_is_outside() -> None:
    over = asyncio.Event()

    async def child() -> AsyncSession | None:
        await over.wait()
        return current_session()

    with bind_session(AsyncSession()):
        task = asyncio.create_task(child())
    over.set()
    assert await task is None


async def test_detached_steps_outside() -> None:
    async def child() -> AsyncSession | None:
        return current_session()

    session = AsyncSession()
    with bind_session(session):
        with detached():
            assert current_session() is None
            assert await asyncio.create_task(child()) is None
        assert current_session() is session


async def test_another_task_may_open_its_own_inside() -> None:
    async def child(session: AsyncSession) -> AsyncSession | None:
        with bind_session(session):
            return current_session()

    own = AsyncSession()
    with bind_session(AsyncSession()):
        assert await asyncio.create_task(child(own)) is own
