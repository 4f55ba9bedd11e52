from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shared.context import Context, bind
from shared.logging import create_logger

Lines = Callable[[], list[dict[str, Any]]]

SECRET = "Bearer abcdefghijkl"


class Seen(logging.Handler):
    """Somebody else's handler."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def only_ours() -> Iterator[None]:
    """Take pytest's handlers off the root logger: records then go straight to our output."""
    root = logging.getLogger()
    others = [handler for handler in root.handlers if handler.name != "glam.output"]
    for handler in others:
        root.removeHandler(handler)
    yield
    for handler in others:
        root.addHandler(handler)


@pytest.fixture
def somebody() -> Iterator[Seen]:
    seen = Seen()
    yield seen
    for name in (None, "shop"):
        logging.getLogger(name).removeHandler(seen)


def log_some(logger_name: str = "shop") -> None:
    logger = create_logger(logger_name)
    with bind(Context.start(request_id="req_1", correlation_id="corr", user_id="u", tenant_id="t")):
        logger.set_request_context(order=7)
        logger.info("order %s took %d", "a-1", 3, level="mine", amount=2.5, nothing=None, ok=True)
        logger.warning("%(name)s", {"name": "named"}, authorization=SECRET, nested={"token": "x"})
        logger.error("used %s", SECRET, text="shpat_0123456789abcdef", name="x", args=(1, 2))
        logger.clear_request_context()
    logger.debug("not a fit %d", "x")
    logger.critical({"any": "object"})


def without_moment(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**line, "timestamp": "", "trace_id": "", "span_id": ""} for line in lines]


def test_a_line_is_the_same_whether_or_not_somebody_else_listens(
    lines: Lines, somebody: Seen
) -> None:
    with only_ours():
        log_some()
        straight = lines()
        logging.getLogger().addHandler(somebody)
        log_some()
        assert without_moment(straight) == without_moment(lines())
    first = ["timestamp", "service", "level", "message", "environment"]
    assert [list(line)[:5] for line in straight] == [first] * 5
    assert SECRET not in json.dumps(straight)


@pytest.mark.parametrize("where", [None, "shop"])
def test_whoever_else_listens_gets_whole_records(
    lines: Lines, somebody: Seen, where: str | None
) -> None:
    with only_ours():
        logging.getLogger(where).addHandler(somebody)
        create_logger("shop").info("hello", order=1)
    (record,) = somebody.records
    assert record.funcName == "test_whoever_else_listens_gets_whole_records"
    assert record.thread
    assert len(lines()) == 1


def test_a_logger_that_keeps_to_itself_stays_so(lines: Lines, somebody: Seen) -> None:
    logger = logging.getLogger("shop")
    logger.addHandler(somebody)
    logger.propagate = False
    with only_ours():
        create_logger("shop").info("hello")
    logger.propagate = True
    assert len(somebody.records) == 1
    assert lines() == []


def test_filters_levels_and_disabling_hold(lines: Lines) -> None:
    logger = logging.getLogger("shop")

    def refuse(record: logging.LogRecord) -> bool:
        return False

    with only_ours():
        logger.addFilter(refuse)
        create_logger("shop").info("filtered")
        logger.removeFilter(refuse)
        logger.setLevel("WARNING")
        create_logger("shop").info("below the level")
        logger.setLevel("NOTSET")
        logging.disable(logging.CRITICAL)
        create_logger("shop").info("disabled")
        logging.disable(logging.NOTSET)
        create_logger("shop").info("written")
    assert [line["message"] for line in lines()] == ["written"]


def test_a_field_of_any_name_is_written(lines: Lines) -> None:
    with only_ours():
        create_logger("shop").info("hello", self="s", created=1, level=2)
    (line,) = lines()
    assert (line["self"], line["created"], line["field_level"]) == ("s", 1, 2)
