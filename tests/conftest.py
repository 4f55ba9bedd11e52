"""What holds for every test; the fixtures with servers come from `shared.testing.plugin`."""

import logging
import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from shared.logging.levels import undo_changes

# No deadline, since a busy machine is no fault; the same examples on every run of CI.
settings.register_profile("glam", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("glam")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what UTF-8 cannot carry: a report with a lone surrogate ends a parallel run."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Put logging back: a test that runs a service in this process sets it up for all."""
    root = logging.getLogger()
    handlers, levels, disabled = list(root.handlers), _levels(), logging.root.manager.disable
    yield
    undo_changes()
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    for logger, level in _levels().items():
        if level != (before := levels.get(logger, logging.NOTSET)):
            logger.setLevel(before)
        logger.disabled = False
    logging.disable(disabled)
    logging.captureWarnings(capture=False)


def _levels() -> dict[logging.Logger, int]:
    root = logging.getLogger()
    known = (x for x in root.manager.loggerDict.values() if isinstance(x, logging.Logger))
    return {logger: logger.level for logger in (root, *known)}
