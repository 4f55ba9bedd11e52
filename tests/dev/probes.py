"""What the tests of this folder ask of processes, ports and servers."""

import socket

import asyncpg
import psutil

from shared.dev import PostgresServer


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def rows(server: PostgresServer, statement: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(server.url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()
