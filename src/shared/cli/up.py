"""``glam up``: servers and services for development, restarted when code changes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from shared.cli.target import load_service
from shared.config import ConfigError, find_root
from shared.config.place import ROOT_VARIABLE, SHARED_FILE
from shared.dev import NatsServer, PostgresServer, ProcessError, ServiceProcess, SmtpSink
from shared.dev.environment import service_environment
from shared.dev.server import free_port
from shared.errors import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchfiles import Change

    from shared.service import Service


class _Servers(NamedTuple):
    nats: NatsServer
    postgres: PostgresServer
    mail: SmtpSink


async def bring_up(targets: list[str], *, data: Path, reload: bool) -> int:
    """Run servers and services until SIGINT or SIGTERM, then stop them all.

    Args:
        targets: services as ``glam run`` takes them.
        data: folder for the servers' data, the mails and the services' logs; kept.
        reload: restart the services when a Python, YAML or template file below here changes.

    Returns:
        0; 1 when something could not be started.
    """
    console = Console()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    logs = data / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    unconfigured = not _configured()
    services = {target: load_service(target) for target in targets}  # before anything is started
    try:
        async with AsyncExitStack() as stack:
            console.print("starting servers ...", style="dim")
            begin = stack.enter_async_context
            servers = _Servers(
                await begin(NatsServer(data_dir=data / "nats", port=_port(4222))),
                await begin(PostgresServer(data_dir=_postgres_dir(data), port=_port(5432))),
                await begin(SmtpSink(data_dir=data / "mail", port=_port(1025))),
            )
            if unconfigured:
                _write_config(data, nats=servers.nats, postgres=servers.postgres)
                console.print(
                    "no config/shared.yml here: every setting has its default", style="dim"
                )
            console.print("starting services ...", style="dim")
            processes = _processes(services, servers, logs)
            for process in processes:
                await stack.enter_async_context(process)
            console.print(_addresses(processes, servers, data))
            console.print("Ctrl-C stops everything; data stays.", style="dim")
            if reload:
                await _reload_until(stopping, processes, data=data, console=console)
            else:
                await stopping.wait()
            console.print("stopping ...", style="dim")
    except ProcessError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    return 0


def _configured() -> bool:
    try:
        find_root(None, os.environ)
    except ConfigError:
        return False
    return True


def _write_config(data: Path, *, nats: NatsServer, postgres: PostgresServer) -> None:
    """Write where the servers are, and have it read: a first service needs no more."""
    database = postgres.settings.model_dump(mode="json", include={"host", "port", "name", "user"})
    file = data / SHARED_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"nats": {"servers": [nats.url]}, "database": database})
    os.environ[ROOT_VARIABLE] = str(data.resolve())
    file.write_text(f"# Written by glam up, each time.\n{text}", "utf-8")


def _processes(
    services: dict[str, Service[Any]], servers: _Servers, logs: Path
) -> list[ServiceProcess]:
    processes = []
    taken: set[int] = set()
    for target, service in services.items():
        settings = service.load_settings()
        port = _port(settings.api.port, taken)
        taken.add(port)
        environment = service_environment(
            service.name,
            database=servers.postgres.settings,
            nats_url=servers.nats.url,
            port=port,
            log_file=logs / f"{service.name}.jsonl",
        )
        if "smtp" in service.settings_type.model_fields:
            prefix = next(iter(environment)).partition("_API__")[0]
            environment |= {
                f"{prefix}_SMTP__HOST": servers.mail.host,
                f"{prefix}_SMTP__PORT": str(servers.mail.port),
            }
        processes.append(
            ServiceProcess(
                [sys.executable, "-m", "glam_start", "run", target],
                name=service.name,
                env=environment,
                ready_url=f"http://127.0.0.1:{port}{settings.api.prefix}/health/ready",
            )
        )
    return processes


def _addresses(processes: list[ServiceProcess], servers: _Servers, data: Path) -> Table:
    nats, postgres, mail = servers
    table = Table("what", "where")
    for process in processes:
        root = (process.ready_url or "").removesuffix("/health/ready")
        table.add_row(process.name, f"{root}/docs")
        table.add_row("", f"{root.partition('/api')[0]}/metrics")
    table.add_row("NATS", nats.url)
    table.add_row("PostgreSQL", f"{postgres.url}, kept in {postgres.data_dir}")
    table.add_row("mail", f"{mail.url}, kept in {data / 'mail' / 'new'}")
    table.add_row("logs", str(data / "logs"))
    return table


async def _reload_until(
    stopping: asyncio.Event, processes: list[ServiceProcess], *, data: Path, console: Console
) -> None:
    try:
        from watchfiles import awatch  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing_extra("dev", error) from error
    async for changes in awatch(".", watch_filter=_source_filter(data), stop_event=stopping):
        console.print(f"{Path(next(iter(changes))[1]).name} changed: restarting", style="dim")
        for process in processes:
            try:
                await process.restart()
            except ProcessError as error:
                console.print(str(error), style="red", markup=False)


def _source_filter(data: Path) -> Callable[[Change, str], bool]:
    from watchfiles import DefaultFilter  # noqa: PLC0415 - an extra

    by_default = DefaultFilter()
    ours = str(data.resolve())

    def is_source(change: Change, path: str) -> bool:
        wanted = Path(path).suffix in {".py", ".yml", ".yaml", ".html", ".txt"}
        return wanted and not path.startswith(ours) and by_default(change, path)

    return is_source


def _postgres_dir(data: Path) -> Path:
    """Return where PostgreSQL keeps its data: root's runs as another user, who must get there."""
    if os.geteuid() != 0:
        return data / "postgres"
    project = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:12]
    return Path("/var/tmp") / f"glam-{project}"  # noqa: S108 - kept over restarts, unlike /tmp


def _port(wanted: int, taken: frozenset[int] | set[int] = frozenset()) -> int:
    """Return ``wanted`` when it is free, else a free port."""
    if wanted and wanted not in taken:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                pass
            else:
                return wanted
    while (port := free_port()) in taken:
        pass
    return port
