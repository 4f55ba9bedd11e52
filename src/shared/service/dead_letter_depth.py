"""How many dead letters the handlers of a service have, as a metric."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shared.errors import MessageBusError
from shared.metrics import dead_letters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.messaging import DeadLetters


_logger = logging.getLogger(__name__)

_EVERY_SECONDS = 15.0


async def watch_dead_letters(
    letters: DeadLetters, *, service: str, subscribers: Sequence[tuple[str, str]]
) -> None:
    """Keep the metric `dead_letters` true, until cancelled.

    The server counts by subject without reading, so that this costs two requests each time.

    Args:
        letters: the dead letters.
        service: the service.
        subscribers: the stream and the durable of each.
    """
    while True:
        try:
            depths = await letters.depths()
        except MessageBusError as error:
            _logger.debug("dead letters not counted: %s", error)
        else:
            for stream, durable in subscribers:
                dead_letters.labels(service, durable).set(depths.get((stream, durable), 0))
        await asyncio.sleep(_EVERY_SECONDS)
