"""The lines of the NATS protocol, seen from between client and server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.dev.tcp_proxy import Send


_END = b"\r\n"
# How many words follow the verb without a reply subject, which is one more before the sizes.
_WORDS = {b"PUB": 2, b"HPUB": 3, b"MSG": 3, b"HMSG": 4}
_WITH_HEADERS = {b"HPUB", b"HMSG"}


@dataclass(frozen=True, slots=True)
class NatsFrame:
    """One message of the protocol, whole.

    `verb` is `PUB` or `HPUB` (from a client), `MSG` or `HMSG` (to a client), or one of those that
    carry nothing (`PING`, `SUB`, `+OK`, ...), for which all but `raw` is empty. `headers` is the
    block as it is on the wire, `raw` the frame.
    """

    verb: str
    subject: str
    reply: str
    headers: bytes
    payload: bytes
    raw: bytes

    @property
    def is_ack(self) -> bool:
        """Whether a consumer says here that it is done with a message (`+ACK`, or nothing)."""
        return (
            self.verb == "PUB"
            and self.subject.startswith("$JS.ACK.")
            and (not self.payload or self.payload.startswith(b"+ACK"))
        )

    @property
    def is_publish(self) -> bool:
        """Whether a client stores a message in a stream here, and says its `Nats-Msg-Id`."""
        return self.verb == "HPUB" and b"\r\nNats-Msg-Id:" in self.headers

    @property
    def is_publish_ack(self) -> bool:
        """Whether the server says here that it has stored a message."""
        return self.verb == "MSG" and self.payload.startswith(b'{"stream":') and not self.reply

    @property
    def is_delivery(self) -> bool:
        """Whether the server gives a message of a stream to a consumer here."""
        return self.verb in {"MSG", "HMSG"} and self.reply.startswith("$JS.ACK.")


Rule: TypeAlias = "Callable[[NatsFrame, Callable[[NatsFrame], None]], None]"
"""What becomes of a frame: it calls `send` once, twice, later (same event loop), or never."""


class NatsFilter:
    """Cuts the bytes of one direction into frames and asks `rule` about each; for `Lane.filter`.

    Set it before the connection is made: it must see the stream from its first byte.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._rest = bytearray()

    def feed(self, chunk: bytes, send: Send) -> None:
        """Take the next bytes; see `shared.dev.tcp_proxy.Filter`.

        Frames that are passed on at once go on together: a write for each would be the proxy's
        whole cost.
        """
        self._rest += chunk
        at_once: list[bytes] | None = []

        def pass_on(frame: NatsFrame) -> None:
            if at_once is None:
                send(frame.raw)
            else:
                at_once.append(frame.raw)

        while (frame := self._next()) is not None:
            self._rule(frame, pass_on)
        if at_once:
            send(b"".join(at_once))
        at_once = None

    def _next(self) -> NatsFrame | None:
        """Take the next whole frame off what has come."""
        line_end = self._rest.find(_END)
        if line_end < 0:
            return None
        line = bytes(self._rest[:line_end])
        verb, *words = line.split()
        if verb.upper() not in _WORDS:
            return self._taken(line_end + len(_END), verb)
        verb = verb.upper()
        size = int(words[-1])
        length = line_end + len(_END) + size + len(_END)
        if len(self._rest) < length:
            return None
        body = bytes(self._rest[line_end + len(_END) : length - len(_END)])
        headers_size = int(words[-2]) if verb in _WITH_HEADERS else 0
        has_reply = len(words) > _WORDS[verb]
        reply_at = -3 if verb in _WITH_HEADERS else -2
        return self._taken(
            length,
            verb,
            subject=words[0].decode(),
            reply=words[reply_at].decode() if has_reply else "",
            headers=body[:headers_size],
            payload=body[headers_size:],
        )

    def _taken(
        self,
        length: int,
        verb: bytes,
        *,
        subject: str = "",
        reply: str = "",
        headers: bytes = b"",
        payload: bytes = b"",
    ) -> NatsFrame:
        raw = bytes(self._rest[:length])
        del self._rest[:length]
        return NatsFrame(verb.decode(), subject, reply, headers, payload, raw)
