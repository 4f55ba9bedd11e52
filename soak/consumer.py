"""`python -m soak.consumer`: applies an effect for every event, in the transaction of its inbox.

Environment: `SOAK_SETTINGS`, `SOAK_NAME`, `SOAK_READY` (a file).
"""

import asyncio
import os
import random
import signal
import sys

from sqlalchemy import text

from shared.delivery import UnitOfWork
from shared.events import CONVENTION, Contract, Envelope
from shared.messaging import RetryPolicy
from shared.service import Service
from soak.events import CONTRACTS, Counted, settings, tell_ready

service = Service("consumer-service", streams=[CONVENTION.of(each) for each in CONTRACTS])

# An error after the effect: the effect must go with the transaction, and come with the next try.
_STUMBLES = 0.005

_APPLY = text("""\
INSERT INTO consumer.effects (event, key, number, applied_by)
VALUES (:event, :key, :number, :by)""")


def consume(contract: Contract[Counted]) -> None:
    """Declare the handler of one contract."""

    @service.handles(
        contract,
        name=contract.subject.rpartition(".")[2],
        concurrency=8,
        ack_wait_seconds=3,
        # Every fault may cost an attempt; how many is what the soak does not ask.
        retry=RetryPolicy(attempts=200, first_delay_seconds=0.05, max_delay_seconds=1),
        order_by="key",
    )
    async def apply(counted: Counted, envelope: Envelope, uow: UnitOfWork) -> None:
        effect = {
            "event": envelope.event_id,
            "key": counted.key,
            "number": counted.number,
            "by": f"{os.environ['SOAK_NAME']} {os.getpid()}",
        }
        await uow.session.execute(_APPLY, effect)
        if random.random() < _STUMBLES:  # noqa: S311 - no secret
            raise RuntimeError("stumbled")


for _contract in CONTRACTS:
    consume(_contract)


async def main() -> None:
    """Consume until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with service.assemble(settings()):
        tell_ready()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
    sys.exit(0)
