from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared.config import LoggingSettings
from shared.logging import configure_logging, request_context

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def no_fields() -> Iterator[None]:
    """Begin without fields bound to the task."""
    token = request_context.set({})
    yield
    request_context.reset(token)


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Lines:
    """Log JSON lines to standard output; `lines()` gives those written since the last call."""
    settings = LoggingSettings(level="DEBUG")
    configure_logging(settings, service="credit-service", environment="prod")

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return read
