"""Serving one application with uvicorn; graceful shutdown, which a load balancer can see."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from types import FrameType

    from shared.service.application import Application


_logger = logging.getLogger(__name__)

# After a second signal, so long may it take to give back what is in flight.
_LAST_SECONDS = 1.0


class _DrainingServer(uvicorn.Server):
    """A uvicorn server that drains the application before it stops listening."""

    def __init__(self, config: uvicorn.Config, application: Application[Any]) -> None:
        super().__init__(config)
        self._application = application
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain, then stop. Second, or while it still starts: end at once."""
        del frame
        if self._application.draining or self._loop is None or not self.started:
            if not self.force_exit:
                # Handlers may refuse to be cancelled, and their threads cannot be. The kernel's own
                # answer to an alarm ends the process, whatever it is in the middle of.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, _LAST_SECONDS)
            self.should_exit = self.force_exit = True
            return
        self._application.draining = True
        self._loop.call_soon_threadsafe(self._begin_drain, sig)

    def _begin_drain(self, sig: int) -> None:
        _logger.info("draining on %s", signal.Signals(sig).name)
        self._drain = asyncio.ensure_future(self._application.drain())
        self._drain.add_done_callback(self._drained)

    def _drained(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("drain failed", exc_info=error)
        self.should_exit = True


def serve(application: Application[Any]) -> None:
    """Serve until SIGTERM or SIGINT.

    On the first signal readiness turns 503, subscribers stop fetching, running handlers and the
    outbox finish within ``drain_seconds`` while HTTP is still answered; then the listener closes.
    A second signal ends the process at once, by SIGALRM if it has not ended within a second: what
    was unfinished is delivered again by the server. So does the first while the service still
    starts, and has nothing in flight.

    Raises:
        SystemExit: with status 3 when the service could not start.
    """
    api = application.settings.api
    config = uvicorn.Config(
        application.app,
        interface="asgi3",
        host=api.host,
        port=api.port,
        log_config=None,
        access_log=False,  # the edge writes it, and decides whom X-Forwarded-For is believed from
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(application.settings.drain_seconds)),
    )
    server = _DrainingServer(config, application)
    server.run()
    if not server.started:
        raise SystemExit(3)
