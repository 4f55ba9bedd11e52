"""The text a scrape reads."""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector


def render(*, registry: CollectorRegistry | None = None, accept: str = "") -> tuple[bytes, str]:
    """Write out the metrics, and name the content type they are written in.

    With `PROMETHEUS_MULTIPROC_DIR` in the environment the default is the sum over all worker
    processes that share the folder, whichever of them is asked. Set it before Python starts: the
    Prometheus client reads it when it is imported.

    Args:
        registry: the metrics to write out; those of the default registry unless given.
        accept: the scraper's `Accept` header; OpenMetrics is written if it asks for it.
    """
    if registry is None:
        registry = REGISTRY
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
