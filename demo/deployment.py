"""The deployment: real servers from wheels, and three services as processes of their own."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic_core import to_json

from shared.dev import NatsServer, PostgresServer, Process, ServiceProcess, SmtpSink
from shared.dev.environment import service_environment
from shared.dev.server import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from demo.day import Day

__all__ = ["SERVICES", "Deployment"]

SERVICES = ("webhook", "credit", "notification")

_ROOT = Path(__file__).parents[1]


class Deployment:
    """NATS, PostgreSQL, a mailbox and the services, on free ports, with their data in `folder`.

    Entering starts everything; leaving stops everything, also after half a start.
    """

    def __init__(self, folder: Path, day: Day) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.nats = NatsServer(data_dir=folder / "nats")
        self.postgres = PostgresServer(data_dir=folder / "postgres")
        self.mailbox = SmtpSink(data_dir=folder / "mail")
        self.services: dict[str, ServiceProcess] = {}
        self._day = day
        self._stack = AsyncExitStack()

    def address(self, service: str) -> str:
        """Return where a service answers: ``http://127.0.0.1:<port>``."""
        return (self.services[service].ready_url or "").partition("/api/")[0]

    @property
    def log_files(self) -> list[Path]:
        """The services' JSON logs."""
        return sorted(self.logs.glob("*.jsonl*"))

    async def __aenter__(self) -> Self:
        self.logs.mkdir(parents=True)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_stop, self.nats, self.postgres, self.mailbox)
            async with asyncio.TaskGroup() as starting:
                for server in (self.nats, self.postgres, self.mailbox):
                    starting.create_task(server.start())
            self.services = {name: self._service(name) for name in SERVICES}
            stack.push_async_callback(_stop, *self.services.values())
            async with asyncio.TaskGroup() as starting:
                for service in self.services.values():
                    starting.create_task(service.start())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def _service(self, name: str) -> ServiceProcess:
        port = free_port()
        environment = service_environment(
            f"{name}-service",
            database=self.postgres.settings,
            nats_url=self.nats.url,
            port=port,
            log_file=self.logs / f"{name}.jsonl",
        )
        return ServiceProcess(
            f"services.{name}",
            name=name,
            env={**environment, **self._rules(name)},
            cwd=_ROOT,
            log_file=self.logs / f"{name}.out",
            ready_url=f"http://127.0.0.1:{port}/api/v1/health/ready",
        )

    def _rules(self, name: str) -> Mapping[str, str]:
        rules = self._day.rules
        secrets = {shop.domain: shop.secret for shop in self._day.shops}
        return {
            "webhook": {
                "WEBHOOK_SHOPIFY__SECRETS": to_json(secrets).decode(),
                "WEBHOOK_SHOPIFY__PLAN_CREDITS": str(rules.renewal),
            },
            "credit": {
                "CREDIT_CREDITS__TRIAL": str(rules.trial),
                "CREDIT_CREDITS__LOW_BALANCE": str(rules.low_balance),
            },
            "notification": {
                "NOTIFICATION_SMTP__HOST": self.mailbox.host,
                "NOTIFICATION_SMTP__PORT": str(self.mailbox.port),
            },
        }[name]


async def _stop(*programs: Process | SmtpSink) -> None:
    await asyncio.gather(*(program.stop() for program in programs))
