"""A replica that handles in order and writes down what it handles; run by a test."""

import asyncio
import json
import sys
from pathlib import Path

from shared.config import NatsSettings
from shared.messaging import Bus, Delivery, RetryPolicy, State, Subscriber, Subscription


async def main() -> None:
    server, history, name = sys.argv[1:]

    async def handler(delivery: Delivery) -> None:
        await asyncio.sleep(0.01)
        if delivery.sequence % 17 == 0 and delivery.attempt == 1:
            raise RuntimeError("once in a while")
        with Path(history).open("a") as file:
            file.write(json.dumps([name, delivery.body.decode()]) + "\n")

    async with Bus(NatsSettings(servers=(server,)), name=name) as bus:
        subscription = Subscription(
            subject="evt.tests.happened",
            durable="tests",
            handler=handler,
            stream="TESTS",
            concurrency=4,
            retry=RetryPolicy(first_delay_seconds=0.05),
            ack_wait_seconds=1,
            order_by=lambda delivery: delivery.body.decode().rstrip("0123456789"),
        )
        subscriber = Subscriber(bus, subscription, service=name)
        running = asyncio.create_task(subscriber.run())
        while subscriber.status.state is not State.RUNNING:
            await asyncio.sleep(0.01)
        sys.stdout.write("running\n")
        sys.stdout.flush()
        await running


asyncio.run(main())
