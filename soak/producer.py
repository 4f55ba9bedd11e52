"""`python -m soak.producer`: counts keys up and tells of it, and writes down what it knows.

Environment: `SOAK_SETTINGS`, `SOAK_NAME`, `SOAK_SEED`, `SOAK_HISTORY` and `SOAK_READY` (files),
`SOAK_RATE` (events a second; 0: produce nothing, only publish what the outbox holds).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, Text, bindparam, text

from shared.errors import InfrastructureError
from shared.service import Service
from shared.testing import Entry, History, Outcome
from soak.events import CONTRACTS, KEYS, Counted, contract_of, settings, tell_ready

if TYPE_CHECKING:
    from shared.service import Application

service = Service("producer-service", publishes=CONTRACTS)

_PER_TRANSACTION = 8
# Transactions that are undone on purpose: their events must never be seen.
_UNDONE = 0.02
_PAUSE_SECONDS = 0.2

# The rows are locked in one order, so that two producers do not wait for each other. They stay
# locked until the commit: what is counted first is committed first.
_COUNT = text("""\
WITH mine AS (
  SELECT key FROM producer.counters WHERE key = ANY(:keys) ORDER BY key FOR UPDATE)
UPDATE producer.counters SET number = number + 1 FROM mine WHERE counters.key = mine.key
RETURNING counters.key, counters.number""").bindparams(bindparam("keys", type_=ARRAY(Text)))


class UndoneError(Exception):
    """Undoes a transaction on purpose."""


async def produce(application: Application[Any], history: History, chance: random.Random) -> int:
    """One transaction: count some keys up and tell of each; return how many events it holds."""
    keys = chance.sample(KEYS, chance.randint(1, 2 * _PER_TRANSACTION - 1))
    undone = chance.random() < _UNDONE
    entries: list[Entry] = []
    committing = False
    try:
        async with application.unit_of_work() as uow:
            counted = (await uow.session.execute(_COUNT, {"keys": keys})).all()
            for key, number in counted:
                envelope = uow.outbox.add(
                    contract_of(key), Counted(key=key, number=number), key=key
                )
                entries.append(
                    Entry(
                        "publish",
                        Outcome.INVOKE,
                        envelope.event_id,
                        key,
                        number,
                        history.by,
                        time.time(),
                    )
                )
            history.add_all(entries)
            if undone:
                await uow.session.flush()
                raise UndoneError
            committing = True
    except UndoneError:
        history.add_all([_outcome(entry, Outcome.FAIL) for entry in entries])
        return 0
    except Exception:
        # The commit may have reached the database, or not; before it, surely not.
        outcome = Outcome.INFO if committing else Outcome.FAIL
        history.add_all([_outcome(entry, outcome) for entry in entries])
        raise
    history.add_all([_outcome(entry, Outcome.OK) for entry in entries])
    return len(entries)


def _outcome(entry: Entry, outcome: Outcome) -> Entry:
    return Entry(entry.what, outcome, entry.event, entry.key, entry.number, entry.by, time.time())


async def produce_steadily(
    application: Application[Any], history: History, chance: random.Random, rate: float
) -> None:
    """Produce so many events a second, as long as the database lets it; after an outage, go on."""
    loop = asyncio.get_running_loop()
    began, produced = loop.time(), 0
    while True:
        try:
            produced += await produce(application, history, chance)
        except (InfrastructureError, OSError, TimeoutError):
            await asyncio.sleep(_PAUSE_SECONDS)
            continue
        ahead = began + produced / rate - loop.time()
        if ahead < -1:  # an outage is not made up for: that would be another fault, a flood
            began, produced = loop.time(), 0
        await asyncio.sleep(max(ahead, 0))


async def main() -> None:
    """Produce until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    rate = float(os.environ["SOAK_RATE"])
    chance = random.Random(f"{os.environ['SOAK_SEED']} {os.getpid()}")  # noqa: S311 - no secret
    history = History(Path(os.environ["SOAK_HISTORY"]), by=os.environ["SOAK_NAME"])
    async with service.assemble(settings()) as application:
        tell_ready()
        if rate <= 0:
            await stop.wait()
            return
        producing = asyncio.create_task(produce_steadily(application, history, chance, rate))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([producing, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        producing.cancel()
        await asyncio.wait([producing])
        if not producing.cancelled() and (error := producing.exception()) is not None:
            raise error


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
