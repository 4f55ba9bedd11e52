"""Writing a log line with six fields and the ids of a request, from the call to its return.

Standard output is a file here, as it is for all; a pipe takes about as long. What makes the
comparison unfair:

- Nobody but us looks for secrets, counts repeated lines, or keeps from waiting for a reader that
  has stalled.
- python-json-logger and structlog get the ids bound beforehand; the standard library's text line
  has none of the fields' names escaped, and is no JSON.
"""

import logging
import sys
from typing import Any

import orjson
import structlog
from pythonjsonlogger.json import JsonFormatter

from benchmarks.harness import Bench, Run
from shared.context import Context, bind
from shared.logging import create_logger

_OPERATIONS = 5_000
_FIELDS: dict[str, Any] = {
    "merchant_id": "9b2c5f0e",
    "order_id": 5123456789,
    "currency": "EUR",
    "amount": 12.5,
    "attempt": 1,
    "route": "/orders/{order_id}",
}


async def log(bench: Bench) -> None:
    """Compare writing one line after another."""
    context = Context.start()
    ids = {
        "request_id": context.request_id,
        "correlation_id": context.correlation_id,
        "trace_id": context.trace.trace_id,
        "span_id": context.trace.span_id,
    }
    with bind(context):
        await bench.compare(
            "log: a line with six fields",
            _OPERATIONS,
            {
                "shared: create_logger": _ours(),
                "python-json-logger": _json_formatter(ids),
                "structlog, orjson": _structlog(ids),
                "stdlib text": _text(),
            },
        )


def _ours() -> Run:
    logger = create_logger("benchmarks.log")

    async def run(operations: int) -> None:
        for _ in range(operations):
            logger.info("order %s debited", "A-1", **_FIELDS)

    return run


def _json_formatter(ids: dict[str, str]) -> Run:
    fields = ["asctime", "levelname", "name", "message"]
    logger = _logger_with("json", JsonFormatter(fields, static_fields=ids))

    async def run(operations: int) -> None:
        for _ in range(operations):
            logger.info("order %s debited", "A-1", extra=_FIELDS)

    return run


def _structlog(ids: dict[str, str]) -> Run:
    logger = structlog.wrap_logger(
        structlog.BytesLogger(sys.stdout.buffer),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    ).bind(**ids)

    async def run(operations: int) -> None:
        for _ in range(operations):
            logger.info("order %s debited", "A-1", **_FIELDS)

    return run


def _text() -> Run:
    names = " ".join(f"{name}=%({name})s" for name in _FIELDS)
    form = logging.Formatter(f"%(asctime)s %(levelname)s %(name)s %(message)s {names}")
    logger = _logger_with("text", form)

    async def run(operations: int) -> None:
        for _ in range(operations):
            logger.info("order %s debited", "A-1", extra=_FIELDS)

    return run


def _logger_with(name: str, formatter: logging.Formatter) -> logging.Logger:
    """Make a logger that writes to standard output, past ours."""
    logger = logging.getLogger(f"benchmarks.peer.{name}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logger.handlers[:] = [handler]
    return logger
