"""Seeing and changing the levels of the log while a service runs."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from shared.api.models import ApiResponse
from shared.api.openapi import raises
from shared.api.responses import success_response
from shared.config import LogLevel
from shared.errors import NotFoundError
from shared.logging import LoggerLevel, log_levels, set_log_level
from shared.logging.levels import has_logger

_DAY = 86_400


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class LevelChange(BaseModel):
    """Which logger is to log from which level on, and for how long."""

    model_config = ConfigDict(extra="forbid")

    logger: str = "root"
    level: Annotated[LogLevel, BeforeValidator(_upper)] | None
    """``null`` goes back to the configured level."""
    for_seconds: Annotated[float, Field(strict=True, gt=0, le=_DAY)] | None = 900
    """``null`` keeps the level until the next change, or the end of the process."""


def create_log_level_router() -> APIRouter:
    """Make the routes ``GET /log-level`` and ``PUT /log-level``. Include them under the prefix.

    A change holds for the process that took the request, and for a quarter of an hour unless the
    request says otherwise: a service forgotten at DEBUG would be a fault of its own. Who may
    call the route may silence the log: `create_operations_router` lets in operators alone, and who
    includes this one by itself guards it with ``dependencies=[Depends(only_operators(...))]``.
    """
    router = APIRouter(tags=["operations"])

    @router.get("/log-level")
    async def levels() -> ApiResponse[list[LoggerLevel]]:
        """List the loggers that have a level of their own."""
        return success_response(log_levels())

    @router.put("/log-level")
    @raises(NotFoundError)
    async def change(wanted: LevelChange) -> ApiResponse[list[LoggerLevel]]:
        """Change the level of a logger, and of those below it; 404 if nobody logs there."""
        if not has_logger(wanted.logger):
            raise NotFoundError(
                "No logger of this name", resource="logger", resource_id=wanted.logger
            )
        set_log_level(wanted.logger, wanted.level, wanted.for_seconds)
        return success_response(log_levels())

    return router
