"""The client, reading headers at a third of the cost, and handing messages on without a queue.

What nats-py keeps to itself is touched here and nowhere else, and `pyproject.toml` bounds the
versions in which it is known to be there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats.aio.subscription import Subscription


_NO_STATUS = b"NATS/1.0\r\n"

# How many names of headers are known again; services use a dozen or two.
_MAX_KNOWN = 1_000


class LeanClient(Client):
    """nats-py's client, which asks of each character of each header's name whether it is blank."""

    def __init__(self) -> None:
        super().__init__()
        self._receivers: dict[int, Callable[[Msg], None]] = {}

    def hand_directly(self, subscription: Subscription, receive: Callable[[Msg], None]) -> None:
        """Call `receive` with each message as it is parsed, in place of the subscription's own.

        Otherwise each goes through a queue to a task of the subscription. It ends with
        `hand_no_more`.
        """
        self._receivers[subscription._id] = receive  # noqa: SLF001

    def hand_no_more(self, subscription: Subscription) -> None:
        """End what `hand_directly` began."""
        self._receivers.pop(subscription._id, None)  # noqa: SLF001

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        receive = self._receivers.get(sid)
        if receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        subscription = self._subs.get(sid)
        if subscription is None:
            return
        subscription._received += 1  # noqa: SLF001
        read: dict[str, str] | None
        if headers and headers.startswith(_NO_STATUS):
            read = self._parse_header_lines(headers[len(_NO_STATUS) :])
        else:
            read = await self._process_headers(headers)
        try:
            receive(Msg(self, subject.decode(), reply.decode(), data, read))
        except Exception as error:  # noqa: BLE001 - as of any callback
            await self._error_cb(error)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """Read `Name: Value` lines to the same outcome as nats-py 2.16."""
        headers = _plainly(raw)
        return _line_by_line(raw) if headers is None else headers


def _plainly(raw: bytes) -> dict[str, str] | None:
    """Read lines at once whose names are known and which have nothing to strip; None for others."""
    if not (raw.isascii() and raw.endswith(b"\r\n\r\n")):
        return None
    lines = raw[:-4].decode().split("\r\n")
    try:
        headers = dict([line.split(": ", 1) for line in lines])
    except ValueError:
        return None
    to_strip = [value for value in headers.values() if value != value.strip()]
    return headers if _known.issuperset(headers) and not to_strip else None


def _line_by_line(raw: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in raw.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            continue
        name = name.strip()
        if not name.isascii():
            continue
        key = name.decode()
        if not key or key.split() == [key]:
            headers[key] = value.strip().decode("utf-8", "replace")
            if len(_known) < _MAX_KNOWN:
                _known.add(key)
    return headers


_known: set[str] = set()


async def write(client: Client, commands: Sequence[bytes], *, messages: int) -> None:
    """Send the commands, or the pieces they are in, in their order and with nothing between them.

    Returns when the client has them in its buffer, and that is not over-full.

    Raises:
        nats.errors.ConnectionClosedError, nats.errors.ConnectionDrainingError: nothing is sent.
    """
    if client.is_closed:
        raise nats.errors.ConnectionClosedError
    if client.is_draining_pubs:
        raise nats.errors.ConnectionDrainingError
    if not commands:
        return
    size = sum(map(len, commands))
    client.stats["out_msgs"] += messages
    client.stats["out_bytes"] += size
    # What the client's own `publish` ends with, once for all of them; it waits at the end only.
    *others, last = commands
    client._pending += others  # noqa: SLF001
    client._pending_data_size += size - len(last)  # noqa: SLF001
    await client._send_command(last)  # noqa: SLF001
    queue = client._flush_queue  # noqa: SLF001
    if queue is not None and queue.empty():
        await client._flush_pending()  # noqa: SLF001


def server_id(client: Client) -> str | None:
    """Return the id of the server the client is connected to."""
    return client._server_info.get("server_id")  # noqa: SLF001


async def connect_alike(other: Client, client: Client, *, name: str) -> None:
    """Connect `other`, once and without coming back, to where `client` is, as who it is.

    Raises:
        nats.errors.Error, OSError, TimeoutError: No server takes it.
    """

    async def ignored(_: Exception) -> None:
        """Let the caller tell of what fails."""

    options = client.options
    await other.connect(
        [server.uri.geturl() for server in client._server_pool],  # noqa: SLF001
        error_cb=ignored,
        name=name,
        allow_reconnect=False,
        connect_timeout=options["connect_timeout"],
        user=options["user"],
        password=options["password"],
        token=options["token"],
        tls=options.get("tls"),
        tls_hostname=options.get("tls_hostname"),
        tls_handshake_first=options["tls_handshake_first"],
        user_credentials=client._user_credentials,  # noqa: SLF001
        nkeys_seed=client._nkeys_seed,  # noqa: SLF001
        nkeys_seed_str=client._nkeys_seed_str,  # noqa: SLF001
    )
