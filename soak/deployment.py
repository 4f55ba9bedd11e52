"""The servers, the replicas of both services, and the proxies before some of them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import asyncpg

from shared.config import (
    DatabaseSettings,
    DeliverySettings,
    LoggingSettings,
    NatsSettings,
    ServiceSettings,
)
from shared.dev import NatsServer, PostgresServer, ProcessError, ServiceProcess, TcpProxy
from shared.testing import NatsProxy
from soak.events import KEYS, TABLES

if TYPE_CHECKING:
    from types import TracebackType

_SUPERVISE_SECONDS = 0.2


class Deployment:
    """Everything that runs.

    The first replica of each service goes through proxies, the others do not, so that what one
    half of the system sees the other does not. Processes that ended are started again, as a
    supervisor would, except those in `down`.
    """

    def __init__(self, folder: Path, *, rate: float, seed: int, replicas: int = 2) -> None:
        self.folder = folder
        self.nats = NatsServer(data_dir=folder / "nats")
        self.postgres = PostgresServer(data_dir=folder / "postgres")
        self.down: set[ServiceProcess] = set()
        self.producers: list[ServiceProcess] = []
        self.consumers: list[ServiceProcess] = []
        self.nats_proxies: list[NatsProxy] = []
        self.postgres_proxies: list[TcpProxy] = []
        self._rate = rate
        self._seed = seed
        self._replicas = replicas
        self._stack = AsyncExitStack()

    @property
    def services(self) -> list[ServiceProcess]:
        """All processes of services."""
        return [*self.producers, *self.consumers]

    async def __aenter__(self) -> Self:
        (self.folder / "postgres").mkdir(parents=True)
        (self.folder / "postgres").chmod(0o755)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.nats)
            await stack.enter_async_context(self.postgres)
            await self._create_tables()
            for module, processes in (("producer", self.producers), ("consumer", self.consumers)):
                for number in range(1, self._replicas + 1):
                    process = await self._service(module, number, stack)
                    processes.append(process)
                    await stack.enter_async_context(process)
            supervisor = asyncio.create_task(self._supervise())
            stack.push_async_callback(_ended, supervisor)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def heal(self) -> None:
        """End what is wrong with connections."""
        for proxy in (*self.nats_proxies, *self.postgres_proxies):
            proxy.heal()

    async def up(self, timeout_seconds: float) -> None:
        """Wait until every replica has started, for at most so long: then there is work to harm."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not all(self._is_up(process) for process in self.services):
                    await asyncio.sleep(_SUPERVISE_SECONDS)

    def _is_up(self, process: ServiceProcess) -> bool:
        ready = Path(process.env["SOAK_READY"])
        return process.running and ready.exists() and ready.read_text() == str(process.pid)

    async def quiet(self) -> None:
        """Let the producers produce no more, and go on publishing what their outbox holds."""
        self.down.update(self.producers)
        for producer in self.producers:
            producer.env["SOAK_RATE"] = "0"
        await asyncio.gather(*(producer.restart() for producer in self.producers))
        self.down.clear()

    async def fetch(self, query: str) -> list[asyncpg.Record]:
        """Ask the database, by no proxy."""
        connection = await asyncpg.connect(self.postgres.url)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    async def _create_tables(self) -> None:
        connection = await asyncpg.connect(self.postgres.url)
        try:
            await connection.execute(TABLES)
            await connection.executemany(
                "INSERT INTO producer.counters (key) VALUES ($1)", [(key,) for key in KEYS]
            )
        finally:
            await connection.close()

    async def _service(self, module: str, number: int, stack: AsyncExitStack) -> ServiceProcess:
        name = f"{module}-{number}"
        nats_url, postgres_port = self.nats.url, self.postgres.port
        if number == 1:
            nats_proxy = await stack.enter_async_context(NatsProxy(self.nats))
            postgres_proxy = await stack.enter_async_context(
                TcpProxy(self.postgres.host, self.postgres.port)
            )
            self.nats_proxies.append(nats_proxy)
            self.postgres_proxies.append(postgres_proxy)
            nats_url, postgres_port = nats_proxy.url, postgres_proxy.port
        settings = ServiceSettings(
            database=DatabaseSettings(
                host=self.postgres.host,
                port=postgres_port,
                name="postgres",
                user="postgres",
                pool_size=8,
                max_overflow=30,
                statement_timeout_seconds=5,
                lock_timeout_seconds=5,
                idle_in_transaction_timeout_seconds=5,
                connect_timeout_seconds=3,
            ),
            nats=NatsSettings(servers=(nats_url,)),
            delivery=DeliverySettings(poll_seconds=0.2),
            logging=LoggingSettings(level="WARNING", format="json"),
            drain_seconds=5,
        )
        return ServiceProcess(
            f"soak.{module}",
            name=name,
            env={
                "SOAK_SETTINGS": settings.model_dump_json(),
                "SOAK_NAME": name,
                "SOAK_HISTORY": str(self.folder / f"history-{name}.jsonl"),
                "SOAK_READY": str(self.folder / f"{name}.ready"),
                "SOAK_RATE": str(self._rate / self._replicas),
                "SOAK_SEED": str(self._seed),
                # A service that is killed again and again must not compile itself each time,
                # whatever is told to this process.
                "PYTHONDONTWRITEBYTECODE": "",
                "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            },
            log_file=self.folder / f"{name}.log",
            stop_timeout_seconds=15,
        )

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(_SUPERVISE_SECONDS)
            for process in self.services:
                if process not in self.down and not process.running:
                    with suppress(ProcessError):
                        await process.start()


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
