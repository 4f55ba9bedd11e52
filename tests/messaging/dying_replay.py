"""Replays dead letter 1, and is killed before the step it is told; run by a test."""

import asyncio
import os
import signal
import sys

from shared.config import NatsSettings
from shared.messaging import Bus, DeadLetters


async def main() -> None:
    async with Bus(NatsSettings(servers=(sys.argv[1],)), name="dying") as bus:
        letters = DeadLetters(bus)

        async def die(*_: object, **__: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        if sys.argv[2] == "audit":
            letters._audit.write = die  # type: ignore[method-assign]
        else:
            letters._remove = die  # type: ignore[method-assign]
        await letters.replay(1)


asyncio.run(main())
