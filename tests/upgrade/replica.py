"""One replica of a service that counts keys up, tells of it, and applies what it hears.

`test_side_by_side.py` runs it on two versions of the package, so it uses what both have. Arguments:
the name of the replica, how many transactions it adds in all, and the settings as JSON.
"""

import asyncio
import random
import signal
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text

import shared
from shared.config import ServiceSettings
from shared.delivery import UnitOfWork
from shared.events import Contract, Envelope
from shared.messaging import RetryPolicy
from shared.service import Service

KEYS = [f"key-{number}" for number in range(6)]

APPLY = text(
    "INSERT INTO public.effects (handler, event, key, number, published_by, applied_by)"
    " VALUES (:handler, :event, :key, :number, :published_by, :applied_by)"
)
ONE_MORE = text("UPDATE public.replicas SET added = added + 1 WHERE name = :name RETURNING added")
NEXT = text("UPDATE public.counters SET number = number + 1 WHERE key = :key RETURNING number")


class Counted(BaseModel):
    key: str
    number: int
    by: str


COUNTED = Contract("evt.credit.counted", Counted)
RECORD = Contract("cmd.credit.record", Counted)

service = Service("counting-service", publishes=[COUNTED, RECORD])
again = RetryPolicy(attempts=100, first_delay_seconds=0.05, max_delay_seconds=0.5)


async def effect(handler: str, counted: Counted, envelope: Envelope, uow: UnitOfWork) -> None:
    values = {
        "handler": handler,
        "event": envelope.event_id,
        "key": counted.key,
        "number": counted.number,
        "published_by": counted.by,
        "applied_by": sys.argv[1],
    }
    await uow.session.execute(APPLY, values)
    if random.random() < 0.05:
        raise RuntimeError("stumbled")


@service.handles(COUNTED, name="ordered", order_by="key", ack_wait_seconds=3, retry=again)
async def ordered(counted: Counted, envelope: Envelope, uow: UnitOfWork) -> None:
    await effect("ordered", counted, envelope, uow)


@service.handles(RECORD, name="shared", ack_wait_seconds=3, retry=again)
async def shared_out(counted: Counted, envelope: Envelope, uow: UnitOfWork) -> None:
    await effect("shared", counted, envelope, uow)


async def add_events(application: Any, name: str, total: int) -> None:
    """Add one event and one command in each transaction; a restarted replica goes on."""
    added = 0
    while added < total:
        async with application.unit_of_work() as uow:
            added = await uow.session.scalar(ONE_MORE, {"name": name})
            key = random.choice(KEYS)
            # The row stays locked until the commit: what is counted first is committed first.
            number = await uow.session.scalar(NEXT, {"key": key})
            counted = Counted(key=key, number=number, by=name)
            uow.outbox.add(COUNTED, counted, key=key)
            uow.outbox.add(RECORD, counted, key=key)
        await asyncio.sleep(0.01)


async def asleep(application: Any) -> bool:
    """Whether any replica has not started yet: they begin together."""
    async with application.unit_of_work() as uow:
        query = text("SELECT EXISTS (SELECT FROM public.replicas WHERE source IS NULL)")
        return bool(await uow.session.scalar(query))


async def main() -> None:
    name, total, settings = sys.argv[1:]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with service.assemble(ServiceSettings.model_validate_json(settings)) as application:
        async with application.unit_of_work() as uow:
            await uow.session.execute(
                text("UPDATE public.replicas SET source = :source WHERE name = :name"),
                {"name": name, "source": str(Path(shared.__file__).parents[1])},
            )
        while await asleep(application):
            await asyncio.sleep(0.05)
        await add_events(application, name, int(total))
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
