"""A mail server that keeps every mail."""

import asyncio
import email
import email.policy
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING, Self

from shared.dev.server import free_port

if TYPE_CHECKING:
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP, Envelope, Session

_PORT_TRIES = 20


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail as it was handed over: the envelope of SMTP and the bytes inside."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    path: Path

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed anew at each call."""
        return email.message_from_bytes(self.raw, policy=email.policy.default)

    @property
    def subject(self) -> str:
        """The subject, decoded; empty if there is none."""
        return str(self.message["subject"] or "")


class SmtpSink:
    """An SMTP server on a free port of 127.0.0.1 that accepts every mail and delivers none.

    Each mail is one file in the folder `new` of `data_dir`, complete when it appears there (as in
    a maildir), and one entry of `messages`. A given `data_dir` is kept, a temporary one is removed
    by `stop`. The server has a thread and a loop of its own, so it serves any caller.

    `answer` is what a sender hears instead of "250 OK" when it is set, and the mail is then not
    kept: `sink.answer = "451 4.3.0 Try again later"`.
    """

    def __init__(self, *, data_dir: Path | None = None, port: int | None = None) -> None:
        self.host = "127.0.0.1"
        self.answer: str | None = None
        self._port = port
        self._kept_dir = None if data_dir is None else data_dir.absolute()
        self._dir: Path | None = None
        self._controller: Controller | None = None
        self._messages: list[Mail] = []
        self._paused = False

    @property
    def port(self) -> int:
        """The TCP port.

        Raises:
            RuntimeError: none was given and the sink was never started.
        """
        if self._port is None:
            raise RuntimeError("the SMTP sink was never started")
        return self._port

    @property
    def url(self) -> str:
        """The address for clients, `smtp://127.0.0.1:<port>`."""
        return f"smtp://{self.host}:{self.port}"

    @property
    def data_dir(self) -> Path:
        """The folder of the mails.

        Raises:
            RuntimeError: none was given and the sink is stopped.
        """
        directory = self._dir or self._kept_dir
        if directory is None:
            raise RuntimeError("the SMTP sink is not started")
        return directory

    @property
    def messages(self) -> tuple[Mail, ...]:
        """The mails since the first start, in the order of arrival."""
        return tuple(self._messages)

    async def start(self) -> None:
        """Start and wait until it answers; a second call does nothing.

        Raises:
            OSError: the given port is in use.
            ImportError: the extra is not installed; the text says what to type.
        """
        if self._controller is not None:
            return
        if self._dir is None:
            self._dir = self._kept_dir or Path(tempfile.mkdtemp(prefix="glam-smtp-"))
            for part in ("tmp", "new", "cur"):
                (self._dir / part).mkdir(parents=True, exist_ok=True)
        try:
            await asyncio.to_thread(self._listen)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop and remove the temporary folder; `messages` stay readable. Again: nothing."""
        await self.kill()
        if self._dir is not None and self._kept_dir is None:
            shutil.rmtree(self._dir, ignore_errors=True)
        self._dir = None

    async def kill(self) -> None:
        """Stop at once; folder and mails stay."""
        controller, self._controller = self._controller, None
        self._paused = False
        if controller is not None:
            await asyncio.to_thread(controller.stop)

    async def restart(self) -> None:
        """Stop if it runs and start again with the same port and mails."""
        await self.kill()
        await self.start()

    async def pause(self) -> None:
        """Answer no mail until `resume`: senders wait after they have handed it over."""
        self._paused = True

    async def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False

    async def wait_for(self, count: int = 1, *, timeout_seconds: float = 60.0) -> tuple[Mail, ...]:
        """Wait until at least `count` mails have come, and return all.

        Raises:
            TimeoutError: fewer came within `timeout_seconds`.
        """
        deadline = time.monotonic() + timeout_seconds
        while len(self._messages) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._messages)} of {count} mails came")
            await asyncio.sleep(0.01)
        return self.messages

    def clear(self) -> None:
        """Forget the mails in `messages`; their files stay."""
        self._messages.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _listen(self) -> None:
        try:
            from aiosmtpd.controller import Controller  # noqa: PLC0415 - an extra
        except ImportError as error:
            from shared.errors import missing_extra  # noqa: PLC0415

            raise missing_extra("dev", error) from error
        for attempt in range(1, _PORT_TRIES + 1):
            port = self._port or free_port()
            controller = Controller(_Handler(self._receive), hostname=self.host, port=port)
            try:
                controller.start()
            except OSError:
                if self._port is not None or attempt == _PORT_TRIES:
                    raise
            else:
                self._port = port
                self._controller = controller
                return

    async def _receive(self, sender: str, recipients: tuple[str, ...], raw: bytes) -> str:
        """Keep one mail and answer; runs in the thread of aiosmtpd."""
        while self._paused:  # noqa: ASYNC110 - set in another thread
            await asyncio.sleep(0.01)
        if self.answer is not None:
            return self.answer
        name = f"{time.time_ns()}.eml"
        path = self.data_dir / "new" / name
        unfinished = self.data_dir / "tmp" / name
        unfinished.write_bytes(raw)
        unfinished.rename(path)
        self._messages.append(Mail(sender, recipients, raw, path))
        return "250 2.0.0 OK"


class _Handler:
    """What aiosmtpd calls. Its own class, since aiosmtpd reads every attribute of a handler."""

    def __init__(self, receive: Callable[[str, tuple[str, ...], bytes], Awaitable[str]]) -> None:
        self._receive = receive

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: "SMTP", session: "Session", envelope: "Envelope"
    ) -> str:
        del server, session
        content = envelope.content
        raw = content.encode() if isinstance(content, str) else content or b""
        return await self._receive(envelope.mail_from or "", tuple(envelope.rcpt_tos), raw)
