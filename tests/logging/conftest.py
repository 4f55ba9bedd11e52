from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared.config import LoggingSettings
from shared.logging import configure_logging, request_context

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Put the root logger and the task's fields back."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    token = request_context.set({})
    yield
    request_context.reset(token)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Lines:
    """Log JSON lines to standard output; `lines()` gives those written since the last call."""
    settings = LoggingSettings(level="DEBUG")
    configure_logging(settings, service="credit-service", environment="prod")

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return read
