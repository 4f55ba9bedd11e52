"""A real fault every few seconds."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from shared.testing import Fault, History, Outcome, faults

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.dev import ServiceProcess
    from soak.deployment import Deployment

# (how often it comes, what it is, how many seconds it lasts at least and at most)
_Choice = tuple[int, Fault, float, float]

# How long all is well between two faults of one task. A killed service takes longer to come back
# than a connection.
_SERVICE_PAUSE_SECONDS = (2.0, 6.0)
_UP_SECONDS = 30.0
_SERVER_PAUSE_SECONDS = (0.5, 3.0)


class Chaos:
    """Two tasks: one for the processes of the services, one for servers and connections.

    Each does one thing after the other, so two faults at a time are usual, and never two on one
    target. The same seed gives the same faults in the same order; when they hit is the machine's.
    """

    def __init__(self, deployment: Deployment, chance: random.Random, history: History) -> None:
        self._deployment = deployment
        self._chance = chance
        self._history = history

    async def run(self, seconds: float) -> None:
        """Do harm for so long, and leave all well behind."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._harm(self._on_services(), seconds, _SERVICE_PAUSE_SECONDS))
            tasks.create_task(self._harm(self._on_servers(), seconds, _SERVER_PAUSE_SECONDS))
        self._deployment.heal()

    async def _harm(
        self, choices: Sequence[_Choice], seconds: float, pause: tuple[float, float]
    ) -> None:
        chance = random.Random(self._chance.random())  # noqa: S311 - no secret
        weights = [choice[0] for choice in choices]
        # Every kind comes once, in any order, before chance alone decides.
        first = chance.sample(choices, len(choices))
        until = asyncio.get_running_loop().time() + seconds
        while True:
            await asyncio.sleep(chance.uniform(*pause))
            if pause is _SERVICE_PAUSE_SECONDS:
                await self._deployment.up(_UP_SECONDS)
            _, fault, least, most = first.pop() if first else chance.choices(choices, weights)[0]
            if asyncio.get_running_loop().time() + most > until:
                return
            await self._inflict(fault, chance.uniform(least, most))

    async def _inflict(self, fault: Fault, seconds: float) -> None:
        self._history.add("fault", Outcome.INVOKE, fault.kind, note=fault.target)
        async with fault:
            await asyncio.sleep(seconds)
        self._history.add("fault", Outcome.OK, fault.kind, note=fault.target)

    def _on_services(self) -> list[_Choice]:
        deployment = self._deployment
        choices: list[_Choice] = []
        for process in deployment.services:
            choices += [
                (3, self._down(faults.killed(process), process), 0.1, 2),
                (2, self._down(faults.frozen(process), process), 1, 6),
                (1, self._down(faults.restarted(process), process), 0.1, 1),
            ]
        choices.append((2, self._relays_killed(), 0.1, 1))
        return choices

    def _on_servers(self) -> list[_Choice]:
        deployment = self._deployment
        choices: list[_Choice] = [
            (2, faults.killed(deployment.nats), 0.1, 2),
            (1, faults.restarted(deployment.nats), 0.1, 1),
            (2, faults.frozen(deployment.nats), 0.5, 4),
            (2, faults.full_disk(deployment.nats), 0.5, 2),
            (2, faults.database_down(deployment.postgres), 0.1, 2),
            (1, faults.restarted(deployment.postgres), 0.1, 1),
            (1, faults.frozen(deployment.postgres), 0.5, 3),
        ]
        for name, proxy in zip(("producer", "consumer"), deployment.nats_proxies, strict=True):
            choices += [
                (2, faults.cut(proxy, target=f"{name} - nats"), 0.1, 2),
                (1, faults.silent(proxy, target=f"{name} - nats"), 0.5, 3),
                (1, faults.slow(proxy, target=f"{name} - nats"), 1, 3),
            ]
        for name, link in zip(("producer", "consumer"), deployment.postgres_proxies, strict=True):
            choices += [
                (2, faults.cut(link, target=f"{name} - postgres"), 0.1, 2),
                (1, faults.silent(link, target=f"{name} - postgres"), 0.5, 3),
            ]
        producing, consuming = deployment.nats_proxies
        chance = self._chance
        choices += [
            (2, faults.lost_acks(consuming, share=0.5, chance=chance), 1, 4),
            (2, faults.lost_publish_acks(producing, share=0.3, chance=chance), 1, 4),
            (2, faults.doubled_publishes(producing, chance=chance), 1, 4),
            (2, faults.doubled_deliveries(consuming, chance=chance), 1, 4),
            (2, faults.reordered_deliveries(consuming, chance=chance), 1, 4),
            (1, faults.delayed_deliveries(consuming, share=0.3, chance=chance), 1, 4),
        ]
        return choices

    def _down(self, fault: Fault, *processes: ServiceProcess) -> Fault:
        """Keep the supervisor away while the fault lasts."""
        return Fault(
            fault.kind, fault.target, lambda: _Unsupervised(self._deployment, fault, processes)
        )

    def _relays_killed(self) -> Fault:
        """Whoever has the relay dies, and nobody takes over."""
        producers = self._deployment.producers
        return self._down(
            Fault("kill -9", "all relays", lambda: _All([faults.killed(p) for p in producers])),
            *producers,
        )


class _All:
    """Several faults at once."""

    def __init__(self, several: Sequence[Fault]) -> None:
        self._several = several

    async def __aenter__(self) -> None:
        await asyncio.gather(*(fault.__aenter__() for fault in self._several))

    async def __aexit__(self, *error: object) -> None:
        await asyncio.gather(*(fault.__aexit__(None, None, None) for fault in self._several))


class _Unsupervised:
    """A fault whose processes are not started again before it is over."""

    def __init__(
        self, deployment: Deployment, fault: Fault, processes: Sequence[ServiceProcess]
    ) -> None:
        self._deployment = deployment
        self._fault = fault
        self._processes = processes

    async def __aenter__(self) -> None:
        self._deployment.down.update(self._processes)
        await self._fault.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        try:
            await self._fault.__aexit__(None, None, None)
        finally:
            self._deployment.down.difference_update(self._processes)
