"""Liveness, readiness and start-up of a service over HTTP.

Live says that the process answers, and never asks a dependency: restarting this process would not
mend a database. Ready says that work may be sent here.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python

from shared.context import Context, bind, current

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing a service needs in order to do its work.

    Args:
        name: what is asked, such as ``database``.
        check: returns when all is well; what it returns is shown as the result's ``detail``.
            Raising, or returning ``False``, says that it is not.
        timeout_seconds: how long it may take. The answer does not wait longer, even for a check
            that does not heed its cancellation.
    """

    name: str
    check: Callable[[], Awaitable[object]]
    timeout_seconds: float = 2.0


class ProbeResult(BaseModel):
    """What a probe found. ``error`` is the kind of error alone; its words are in the log."""

    status: Literal["ok", "failed", "timeout"]
    latency_ms: float
    detail: Any = Field(default=None, exclude_if=lambda value: value is None)
    error: str | None = Field(default=None, exclude_if=lambda value: value is None)


class Health(BaseModel):
    """A service that answers."""

    status: Literal["healthy", "starting"]
    service: str
    timestamp: datetime


class Readiness(BaseModel):
    """Whether work may be sent to a service, and if not, why."""

    status: Literal["ready", "not_ready", "draining"]
    service: str
    timestamp: datetime
    checks: dict[str, ProbeResult]


def create_health_router(
    service_name: str,
    *,
    probes: Sequence[Probe] = (),
    draining: Callable[[], bool] | None = None,
    started: Callable[[], bool] | None = None,
) -> APIRouter:
    """Make the routes ``/health``, ``/health/live``, ``/health/ready`` and ``/health/startup``.

    Include it under the service's prefix. Each route also answers HEAD.

    Args:
        service_name: shown in each answer.
        probes: what readiness asks, all at once, each within its own deadline.
        draining: readiness answers 503 without asking a probe while this is true.
        started: start-up answers 503 while this is false. Left out, a service that answers has
            started, because its lifespan has been entered by then.
    """
    router = APIRouter(tags=["health"])

    def health(status: Literal["healthy", "starting"] = "healthy") -> Health:
        return Health(status=status, service=service_name, timestamp=datetime.now(UTC))

    async def healthy() -> Health:
        """Say that the service answers."""
        return health()

    async def startup(response: Response) -> Health:
        """Say whether the service has started; 503 until then."""
        if started is None or started():
            return health()
        response.status_code = 503
        return health("starting")

    async def ready(response: Response) -> Readiness:
        """Say whether work may be sent here; 503 while a check fails or the service drains."""
        checks: dict[str, ProbeResult] = {}
        status: Literal["ready", "not_ready", "draining"] = "ready"
        if draining is not None and draining():
            status = "draining"
        else:
            results = await asyncio.gather(*(_ask(probe) for probe in probes))
            checks = {probe.name: result for probe, result in zip(probes, results, strict=True)}
            if any(result.status != "ok" for result in results):
                status = "not_ready"
        if status != "ready":
            response.status_code = 503
        return Readiness(
            status=status, service=service_name, timestamp=datetime.now(UTC), checks=checks
        )

    routes: list[tuple[str, Callable[..., Any], dict[int | str, dict[str, Any]]]] = [
        ("/health", healthy, {}),
        ("/health/live", healthy, {}),
        ("/health/ready", ready, {503: {"description": "Not ready", "model": Readiness}}),
        ("/health/startup", startup, {503: {"description": "Not started", "model": Health}}),
    ]
    for path, endpoint, responses in routes:
        router.add_api_route(path, endpoint, methods=["GET"], responses=responses)
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    return router


async def _check(probe: Probe) -> object:
    # Unsampled: nobody wants a trace of every question an orchestrator asks.
    context = current() or Context.start()
    trace = replace(context.trace, flags=context.trace.flags & ~1)
    with bind(replace(context, trace=trace)):
        return await probe.check()


async def _ask(probe: Probe) -> ProbeResult:
    started = time.perf_counter()
    task = asyncio.create_task(_check(probe))
    try:
        # Unlike asyncio.timeout, wait() does not wait for the cancelled check to end.
        await asyncio.wait({task}, timeout=probe.timeout_seconds)
    finally:
        if not task.done():
            task.add_done_callback(_retrieve)
            task.cancel()
    latency_ms = round((time.perf_counter() - started) * 1000, 3)
    if not task.done():
        _logger.warning("probe %s took longer than %s s", probe.name, probe.timeout_seconds)
        return ProbeResult(status="timeout", latency_ms=latency_ms)
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if error is not None:
        _logger.warning("probe %s failed", probe.name, exc_info=error)
        return ProbeResult(status="failed", latency_ms=latency_ms, error=type(error).__name__)
    found = task.result()
    if found is False:
        return ProbeResult(status="failed", latency_ms=latency_ms)
    detail = None if found is None or found is True else to_jsonable_python(found, fallback=str)
    return ProbeResult(status="ok", latency_ms=latency_ms, detail=detail)


def _retrieve(task: asyncio.Future[object]) -> None:
    # An error nobody asks for would be reported when the task is collected.
    if not task.cancelled():
        task.exception()
