"""A proxy before a NATS server that knows what it carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.dev import NatsServer, TcpProxy
from shared.testing.nats_frames import NatsFilter, NatsFrame, Rule

if TYPE_CHECKING:
    from collections.abc import Callable


class NatsProxy(TcpProxy):
    """A `TcpProxy` whose faults may also be of single messages: lost, doubled, late, out of order.

    `rules` are asked about every frame of both directions, one after the other, and may change at
    any time; `shared.testing.faults` has some. `heal` takes them away.
    """

    def __init__(self, server: NatsServer, *, listen_port: int | None = None) -> None:
        super().__init__(server.host, server.port, listen_port=listen_port)
        self.rules: list[Rule] = []
        self._watch()

    @property
    def url(self) -> str:
        """The address for clients, `nats://127.0.0.1:<port>`."""
        return f"nats://{self.address}"

    def heal(self) -> None:
        """Take back all faults, rules too."""
        self.rules.clear()
        super().heal()
        self._watch()

    def _watch(self) -> None:
        self.to_server.filter(self._filter)
        self.to_client.filter(self._filter)

    def _filter(self) -> NatsFilter:
        return NatsFilter(self._judge)

    def _judge(self, frame: NatsFrame, send: Callable[[NatsFrame], None]) -> None:
        _ask(tuple(self.rules), frame, send)


def _ask(rules: tuple[Rule, ...], frame: NatsFrame, send: Callable[[NatsFrame], None]) -> None:
    if not rules:
        send(frame)
        return
    first, *others = rules
    first(frame, lambda passed: _ask(tuple(others), passed, send))
