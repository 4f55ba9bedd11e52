"""What is running: a series that is always 1 and tells by its labels."""

import platform
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import Gauge

build_info = Gauge(
    "build_info",
    "Always 1; the labels say what runs.",
    ["service", "version", "chassis", "python"],
    multiprocess_mode="livemax",
)


def record_build(service: str, *, service_version: str = "unknown") -> None:
    """Set `build_info` for a service; once is enough, again is harmless."""
    try:
        chassis = version("glam-shared")
    except PackageNotFoundError:
        chassis = "unknown"
    build_info.labels(service, service_version, chassis, platform.python_version()).set(1)
