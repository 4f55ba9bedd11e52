"""A service whose handler dies with its process; run by a test."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from shared.config import NatsSettings
from shared.messaging import Bus, Delivery, RetryPolicy, Subscriber, Subscription


async def _die(_: Delivery) -> None:
    if len(sys.argv) > 2:
        with Path(sys.argv[2]).open("a") as lives:
            lives.write(f"{time.time()}\n")
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    async with Bus(NatsSettings(servers=(sys.argv[1],)), name="suicidal") as bus:
        subscription = Subscription(
            subject="evt.tests.happened",
            durable="tests",
            handler=_die,
            stream="TESTS",
            concurrency=1,
            retry=RetryPolicy(
                attempts=3, first_delay_seconds=float(os.environ.get("FIRST_DELAY", "0.01"))
            ),
            ack_wait_seconds=0.5,
        )
        await Subscriber(bus, subscription, service="suicidal").run()


asyncio.run(main())
