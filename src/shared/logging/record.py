"""Records that go straight to our output, past what the standard library does for other handlers.

The library finds the line of code that logged, the process, the thread and the task for every
record; our lines show none of them, and finding them takes longer than all the rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import cast

FIELDS = "glam_fields"
"""The attribute of a record that holds fields whose names need not be fit for an attribute."""

OUTPUT = "glam.output"
"""The name of the one handler that `configure_logging` puts on the root logger."""

_LEVELS = {
    level: logging.getLevelName(level)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
}


class DirectRecord(logging.LogRecord):
    """A record with what our output writes, and nothing else."""

    exc_info = None
    exc_text = None
    stack_info = None

    def __init__(  # the library's own is what this does without
        self,
        name: str,
        level: int,
        msg: object,
        args: tuple[object, ...],
        fields: Mapping[str, object],
    ) -> None:
        self.created = time.time()
        self.name = name
        self.levelno = level
        self.levelname = _LEVELS.get(level) or logging.getLevelName(level)
        self.msg = msg
        # As the library has it: a single mapping is for marks with names.
        only = args[0] if len(args) == 1 else None
        named = only and type(only) is not str and isinstance(only, Mapping)
        self.args = cast("Mapping[str, object]", only) if named else args
        self.glam_fields = fields


def log_directly(
    logger: logging.Logger,
    level: int,
    msg: object,
    args: tuple[object, ...],
    fields: Mapping[str, object],
) -> bool:
    """Log a message with fields, unless somebody beside our output would see the record.

    Handlers and filters that somebody put on the logger, on one above it or on our output need a
    whole record: then nothing is done, and the answer is `False`.
    """
    output = _only_output(logger)
    if output is None:
        return False
    if logger.isEnabledFor(level):
        output.handle(DirectRecord(logger.name, level, msg, args, fields))
    return True


def _only_output(logger: logging.Logger) -> logging.Handler | None:
    """Return our output, if it is the only one that would get this logger's records."""
    if logger.filters or logging.getLogRecordFactory() is not logging.LogRecord:
        return None
    node: logging.Logger | None = logger
    while node is not None:
        handlers = node.handlers
        if handlers:
            output = handlers[0]
            alone = len(handlers) == 1 and (node.parent is None or not node.propagate)
            return output if alone and output.name == OUTPUT and not output.filters else None
        if not node.propagate:
            return None
        node = node.parent
    return None
