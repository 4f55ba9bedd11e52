from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError

import pytest

import shared.context
from shared.context import Context, TraceContext, attach, bind, current


def test_the_public_names() -> None:
    assert shared.context.__all__ == [
        "Context",
        "TraceContext",
        "attach",
        "bind",
        "current",
        "new_event_id",
        "new_request_id",
        "new_span_id",
        "new_trace_id",
        "safe_id",
    ]


def test_what_the_caller_did_not_send_is_generated() -> None:
    context = Context.start()
    assert context.request_id.startswith("req_")
    assert context.correlation_id == context.trace.trace_id
    assert (context.tenant_id, context.user_id, context.service) == (None, None, None)


def test_what_the_caller_sent_is_kept() -> None:
    trace = TraceContext.start()
    context = Context.start(
        request_id="r-1", correlation_id="c-1", trace=trace, tenant_id="t", user_id="u", service="s"
    )
    assert context == Context("r-1", "c-1", trace, "t", "u", "s")


@pytest.mark.parametrize("bad", ["", "a\r\nX-Evil: 1", "x" * 129])
def test_unsafe_ids_of_the_caller_are_replaced(bad: str) -> None:
    context = Context.start(request_id=bad, correlation_id=bad)
    assert context.request_id.startswith("req_")
    assert context.correlation_id == context.trace.trace_id


def test_a_context_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Context.start().tenant_id = "other"  # type: ignore[misc]


def test_binding_nests_and_ends_with_the_block() -> None:
    outer, inner = Context.start(), Context.start()
    assert current() is None
    with bind(outer) as bound:
        assert bound is current() is outer
        with pytest.raises(RuntimeError, match="broken"), bind(inner):  # noqa: PT012
            assert current() is inner
            raise RuntimeError("broken")
        assert current() is outer
    assert current() is None


async def test_concurrent_tasks_never_see_each_others_context() -> None:
    async def work(context: Context) -> bool:
        with bind(context):
            for _ in range(10):
                await asyncio.sleep(0)
                if current() is not context:
                    return False
        return current() is None

    assert all(await asyncio.gather(*(work(Context.start()) for _ in range(100))))


async def test_a_task_started_inside_keeps_the_context() -> None:
    async def look() -> Context | None:
        await asyncio.sleep(0)
        return current()

    context = Context.start()
    with bind(context):
        task = asyncio.create_task(look())
    assert await task is context
    assert current() is None


async def test_attach_changes_this_task_and_those_it_starts_and_no_other() -> None:
    attached = Context.start(tenant_id="shop-1")

    async def child() -> Context | None:
        return current()

    async def attaching() -> Context | None:
        attach(attached)
        return await asyncio.create_task(child())

    assert await asyncio.create_task(attaching()) == attached
    assert current() is None
