"""What holds for every test; the fixtures with servers come from `shared.testing.plugin`.

A test is marked `servers` if it asks for a fixture with a server, makes one itself, or if its
module says so (`pytestmark = pytest.mark.servers`) because what it calls starts one. All others are
marked `unit`, and fail if they start one.
"""

import logging
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from shared.logging.levels import undo_changes

# No deadline, since a busy machine is no fault; the same examples on every run of CI.
settings.register_profile("glam", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("glam")

_SERVER_FIXTURES = {
    *("nats_server", "own_nats_server", "own_postgres_server", "postgres_server"),
    "redis_server",
}
_SERVER_CLASSES = {"NatsServer", "PostgresServer"}
_SERVER_PROGRAMS = {"nats-server", "postgres", "valkey-server", "redis-server"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with `unit` or `servers`."""
    for item in items:
        function = getattr(item, "function", None)
        fixtures = set(getattr(item, "fixturenames", ()))
        named = set(function.__code__.co_names) if function is not None else set()
        if fixtures & _SERVER_FIXTURES or named & _SERVER_CLASSES:
            item.add_marker(pytest.mark.servers)
        elif item.get_closest_marker("servers") is None:
            item.add_marker(pytest.mark.unit)


class _UnitTests:
    """Fails the unit test that starts a server, at the start of the process."""

    def __init__(self) -> None:
        self.running: str | None = None
        sys.addaudithook(self._heard)  # for as long as the interpreter runs

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.running is None or event != "subprocess.Popen":
            return
        command = arguments[1]
        words = [command] if isinstance(command, str) else command
        programs = {Path(os.fsdecode(word)).name for word in words}  # type: ignore[attr-defined]
        if started := programs & _SERVER_PROGRAMS:
            pytest.fail(
                f"{self.running} started {started.pop()}, and is not marked `servers`: ask for a "
                "fixture with a server, or write `pytestmark = pytest.mark.servers` in its module"
            )


_unit_tests = _UnitTests()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch the unit tests, from the set-up to the tear-down."""
    _unit_tests.running = item.nodeid if item.get_closest_marker("unit") else None
    try:
        return (yield)
    finally:
        _unit_tests.running = None


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
