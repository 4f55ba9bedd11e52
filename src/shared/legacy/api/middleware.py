"""The edge under the names of the first design."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.api.edge import Edge, install_edge
from shared.api.exception_handlers import install_exception_handlers
from shared.config import ApiSettings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp

__all__ = ["APIMiddleware", "setup_middleware"]


class APIMiddleware(Edge):
    """The `Edge`, without metrics, under an older name."""

    def __init__(self, app: ASGIApp, *, service_name: str = "glam-service") -> None:
        super().__init__(app, service=service_name)


def setup_middleware(
    app: FastAPI,
    *,
    service_name: str,
    enable_tracing: bool = True,
    enable_metrics: bool = True,
    metrics_path: str = "/metrics",
    settings: ApiSettings | None = None,
) -> None:
    """Put the edge around ``app`` and make every error of it an envelope.

    Args:
        app: the application, not started yet.
        service_name: the service's name.
        enable_tracing: has no effect: ids, trace and access log are one decision of the edge.
        enable_metrics: whether to measure, and to serve the metrics at ``metrics_path``.
        metrics_path: where the metrics are served.
        settings: limits and trusted proxies, the defaults unless given.
    """
    del enable_tracing
    settings = (settings or ApiSettings()).model_copy(update={"metrics_path": metrics_path})
    install_exception_handlers(app)
    install_edge(app, settings, service=service_name, metrics=enable_metrics)
