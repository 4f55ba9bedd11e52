"""Both sides of a call: the client, the called application, and servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from shared.api import install_edge, install_exception_handlers, install_service_identity
from shared.config import ApiSettings, HttpClientSettings, ServiceAuthSettings
from shared.http import ServiceClient

if TYPE_CHECKING:
    from fastapi import FastAPI

Answer = Callable[[int], Awaitable[bytes | None]]

SECRET = "0123456789abcdef0123456789abcdef"
AUTH = ServiceAuthSettings.model_validate({"secrets": {"2026-11": SECRET}})
QUICK = HttpClientSettings(retry_first_delay_seconds=0.001, retry_max_delay_seconds=0.002)


def client_for(url: str, auth: ServiceAuthSettings = AUTH, **settings: Any) -> ServiceClient:
    """A client of the credit service that does not wait long between attempts."""
    return ServiceClient(
        "credit-service",
        caller="webhook-service",
        settings=QUICK.model_copy(update=settings),
        auth=auth,
        base_url=url,
    )


def assembled(app: FastAPI, *, auth: ServiceAuthSettings = AUTH, **api: Any) -> FastAPI:
    """The application with all that a service has at its door."""
    install_exception_handlers(app)
    install_service_identity(app, auth, service="credit-service")
    install_edge(app, ApiSettings(**api), service="credit-service", metrics=False)
    return app


class FaultyServer:
    """A server that reads a request and does with the connection what a test says.

    Attributes:
        url: its address.
        requests: the heads of the requests that arrived whole.
    """

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.requests: list[str] = []
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [v for k, v in self._fields(head) if k == "content-length"]
                await reader.readexactly(int(length[0]) if length else 0)
                self.requests.append(head.decode())
                answer = await self._answer(len(self.requests))
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @staticmethod
    def _fields(head: bytes) -> list[tuple[str, str]]:
        lines = head.decode().split("\r\n")[1:]
        return [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]


def answered(status: int, body: str, *headers: str) -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()
