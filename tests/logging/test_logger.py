from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from shared.logging import ServiceLogger, create_logger, request_context
from shared.utils import logger as old_path

Lines = Callable[[], list[dict[str, Any]]]


def test_the_old_path_hands_on_the_same_objects() -> None:
    assert old_path.create_logger is create_logger
    assert old_path.ServiceLogger is ServiceLogger
    assert old_path.request_context is request_context


def test_printf_arguments_extra_and_free_keywords(lines: Lines) -> None:
    logger = ServiceLogger("credit-service")
    for log in (logger.debug, logger.info, logger.warning, logger.error, logger.critical):
        log("took %d of %s", 5, "m", merchant_id="m", extra={"order": 1})
    written = lines()
    assert [line["level"] for line in written] == ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    for line in written:
        assert line.items() >= {"message": "took 5 of m", "merchant_id": "m", "order": 1}.items()


def test_exceptions_are_logged_whole(lines: Lines) -> None:
    logger = create_logger("credit-service")
    try:
        raise ValueError("why")
    except ValueError as error:
        logger.exception("one")
        logger.error("two", exc_info=True)  # noqa: G201
        logger.error("three", exc_info=error)  # noqa: TRY400
    logger.exception("outside of any")  # noqa: LOG004
    *with_traceback, without = lines()
    assert all("ValueError: why" in line["exception"] for line in with_traceback)
    assert "exception" not in without


def test_fields_may_have_any_name(lines: Lines) -> None:
    clashing = vars(logging.makeLogRecord({})).keys()
    create_logger("any").info("hello", extra=dict.fromkeys(clashing, "mine"))
    create_logger("any").info("hello", name="n", args="a", module="m", self="s", level_="l")
    first, second = lines()
    assert first.items() >= {"message": "hello", "name": "mine", "args": "mine"}.items()
    assert second.items() >= {"name": "n", "args": "a", "module": "m", "self": "s"}.items()


def test_the_record_names_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    create_logger("any").warning("here")
    assert caplog.records[0].funcName == "test_the_record_names_the_caller"
    assert caplog.records[0].pathname == __file__


async def test_the_fields_of_one_task_never_reach_another(lines: Lines) -> None:
    logger = create_logger("credit-service")
    arrived = asyncio.Barrier(50)

    async def request(number: int) -> None:
        ServiceLogger("credit-service").set_request_context(number=number)
        await arrived.wait()
        logger.info("%d", number)
        await asyncio.create_task(step(number))
        await arrived.wait()
        logger.set_request_context(late=number)
        await arrived.wait()
        logger.info("%d", number)
        logger.clear_request_context()
        await arrived.wait()
        logger.info("bare")

    async def step(number: int) -> None:
        logger.set_request_context(inner=number)
        logger.info("%d", number)

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(request(number))
    written = [line for line in lines() if line["logger"] == "credit-service"]
    numbered = [line for line in written if line["message"] != "bare"]
    assert len(numbered) == 150
    for line in numbered:
        fields = {line[name] for name in ("number", "inner", "late") if name in line}
        assert fields == {int(line["message"])}
    assert sum("inner" in line for line in written) == 50  # a task's fields end with it
    assert all("number" not in line for line in written if line["message"] == "bare")
    assert dict(request_context.get()) == {}


def test_the_fields_of_one_thread_never_reach_another(lines: Lines) -> None:
    logger = create_logger("credit-service")
    arrived = threading.Barrier(8)

    def request(number: int) -> None:
        logger.set_request_context(number=number)
        arrived.wait()
        logger.info("%d", number)

    threads = [threading.Thread(target=request, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.info("main")
    *theirs, main = lines()
    assert sorted(line["number"] for line in theirs) == list(range(8))
    assert all(line["message"] == str(line["number"]) for line in theirs)
    assert "number" not in main


def test_the_bound_fields_are_read_only() -> None:
    create_logger("any").set_request_context(a=1)
    with pytest.raises(TypeError):
        request_context.get()["a"] = 2  # type: ignore[index]
