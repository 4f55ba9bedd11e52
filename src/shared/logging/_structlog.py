"""structlog's loggers write into the standard library's, so that their lines come out the same.

structlog is not imported here: that takes longer than all else a service's start imports. A service
that uses it has imported it by the time it sets logging up.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from shared.logging.record import FIELDS

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_OPTIONS = ("exc_info", "stack_info", "stacklevel")


def adopt_structlog() -> None:
    """Point structlog at the standard library's loggers, if the process has imported it."""
    structlog: Any = sys.modules.get("structlog")
    if structlog is None:
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            _to_record,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _to_record(_: object, __: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    options = {name: event.pop(name) for name in _OPTIONS if name in event}
    return {"msg": event.pop("event"), "extra": {FIELDS: dict(event)}, **options}
