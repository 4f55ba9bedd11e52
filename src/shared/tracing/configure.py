"""Where spans go beside the log: to a collector, if one is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors.extras import missing_extra
from shared.tracing.span import export_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.config import TracingSettings


def configure_tracing(
    settings: TracingSettings, *, service: str, version: str, environment: str
) -> Callable[[], Awaitable[None]]:
    """Export the spans of this process, if the settings name an endpoint, from now on.

    A span is exported if its trace is sampled, which the trace's first service decides; its line
    in the log is written either way. A second call replaces the first.

    Without an endpoint nothing happens, and nothing of OpenTelemetry's SDK is loaded.

    Args:
        settings: the endpoint, its headers and timeouts.
        service: the resource's `service.name`.
        version: the resource's `service.version`.
        environment: the resource's `deployment.environment.name`; `dev` and `prod` are written
            out, as the conventions want.

    Returns:
        What ends it: spans that wait are sent, for as long as `flush_seconds` allows. A second
        call of it does nothing.

    Raises:
        MissingExtraError: an endpoint is set, but ``glam-shared[otel]`` is not installed.
    """
    if settings.endpoint is None:
        return _nothing
    try:
        from shared.tracing.otlp import OtlpExporter  # noqa: PLC0415 - brings the SDK
    except ImportError as cause:
        raise missing_extra("otel", cause) from cause
    exporter = OtlpExporter(
        settings,
        endpoint=settings.endpoint,
        service=service,
        version=version,
        environment=environment,
    )
    export_to(exporter)
    return exporter.close


async def _nothing() -> None:
    """End what never began."""
