"""The text a scrape reads."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead


def render(*, registry: CollectorRegistry | None = None, accept: str = "") -> tuple[bytes, str]:
    """Write out the metrics, and name the content type they are written in.

    With `PROMETHEUS_MULTIPROC_DIR` in the environment the default is the sum over all worker
    processes that share the folder, whichever of them is asked. What a worker counted outlives it;
    what it had in progress, or in its pool, ends with it. Set the variable before Python starts:
    the Prometheus client reads it when it is imported. Empty the folder before the workers start.

    Args:
        registry: the metrics to write out; those of the default registry unless given.
        accept: the scraper's `Accept` header; OpenMetrics, with exemplars, is written if it asks
            for it.
    """
    if registry is None:
        registry = REGISTRY
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            _forget_dead_workers(folder)
            registry = CollectorRegistry()
            MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _forget_dead_workers(folder: str) -> None:
    """Take away the live gauges of processes that are no more, killed ones too."""
    for pid in {file.stem.rpartition("_")[2] for file in Path(folder).glob("gauge_live*_*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
        except (ValueError, OverflowError, PermissionError):
            continue  # not ours to judge
