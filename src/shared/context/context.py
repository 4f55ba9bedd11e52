"""Who asks, under which ids: what every log line, answer and event of one piece of work shares."""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from shared.context.identifiers import new_request_id, safe_id
from shared.context.trace import TraceContext


@dataclass(frozen=True, slots=True)
class Context:
    """The ids of one request or one message; immutable, so no task can change another's.

    >>> context = Context.start(request_id="req_7", tenant_id="blue-hat")
    >>> context.request_id, context.correlation_id == context.trace.trace_id
    ('req_7', True)
    """

    request_id: str
    correlation_id: str
    trace: TraceContext
    tenant_id: str | None = None
    user_id: str | None = None
    service: str | None = None

    @classmethod
    def start(
        cls,
        *,
        request_id: str | None = None,
        correlation_id: str | None = None,
        trace: TraceContext | None = None,
        tenant_id: str | None = None,
        user_id: str | None = None,
        service: str | None = None,
    ) -> Self:
        """Make a context from what the caller sent; what is missing or unsafe is generated.

        Args:
            request_id: the caller's id; a new one if it is not a `safe_id`.
            correlation_id: the caller's id; the trace id if it is not a `safe_id`.
            trace: the span this work runs in; a new trace if there is none.
            tenant_id: the tenant the work is done for.
            user_id: the person or machine that asked.
            service: the name of the service that does the work.
        """
        trace = trace or TraceContext.start()
        return cls(
            request_id=safe_id(request_id) or new_request_id(),
            correlation_id=safe_id(correlation_id) or trace.trace_id,
            trace=trace,
            tenant_id=tenant_id,
            user_id=user_id,
            service=service,
        )

    def within(self, trace: TraceContext) -> Self:
        """Return the same work in another span."""
        return type(self)(
            self.request_id, self.correlation_id, trace, self.tenant_id, self.user_id, self.service
        )


_current: ContextVar[Context | None] = ContextVar("shared.context", default=None)


def current() -> Context | None:
    """Return the context that is bound here, ``None`` outside of any.

    >>> current() is None
    True
    >>> with bind(Context.start(tenant_id="blue-hat")):
    ...     current().tenant_id
    'blue-hat'
    """
    return _current.get()


def attach(context: Context) -> None:
    """Make ``context`` the current one for the rest of this task, and of tasks it starts.

    Prefer ``bind``, which puts the former back. This is for callers that have no block to leave.
    """
    _current.set(context)


class bind(AbstractContextManager[Context]):  # noqa: N801 - used like a function
    """Make ``context`` the current one inside the block, and put the former back behind it.

    Tasks started inside the block keep it; other tasks never see it.

    >>> with bind(Context.start()) as context:
    ...     current() is context
    True
    """

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> Context:
        self._token = _current.set(self._context)
        return self._context

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
