import asyncio
import smtplib
from email.message import EmailMessage
from pathlib import Path

import pytest

from shared.dev import SmtpSink


def send(sink: SmtpSink, subject: str = "Grüße", *, timeout: float = 5) -> None:
    message = EmailMessage()
    message["From"] = "shop@example.com"
    message["To"] = "merchant@example.com"
    message["Subject"] = subject
    message.set_content("The balance is low.")
    with smtplib.SMTP(sink.host, sink.port, timeout=timeout) as client:
        client.send_message(message)


async def test_every_mail_is_kept_in_memory_and_on_disk(smtp_sink: SmtpSink) -> None:
    await asyncio.to_thread(send, smtp_sink)
    [mail] = await smtp_sink.wait_for(1)
    assert mail.sender == "shop@example.com"
    assert mail.recipients == ("merchant@example.com",)
    assert mail.subject == "Grüße"
    assert mail.message.get_content().strip() == "The balance is low."
    assert mail.path.parent == smtp_sink.data_dir / "new"
    assert mail.path.read_bytes() == mail.raw
    assert list((smtp_sink.data_dir / "tmp").iterdir()) == []
    smtp_sink.clear()
    assert smtp_sink.messages == ()


async def test_an_answer_refuses_the_mail(smtp_sink: SmtpSink) -> None:
    smtp_sink.answer = "451 4.3.0 Try again later"
    with pytest.raises(smtplib.SMTPDataError, match="Try again later"):
        await asyncio.to_thread(send, smtp_sink)
    assert smtp_sink.messages == ()
    smtp_sink.answer = None
    await asyncio.to_thread(send, smtp_sink)
    assert len(smtp_sink.messages) == 1


async def test_a_restart_keeps_address_and_mails(smtp_sink: SmtpSink) -> None:
    await asyncio.to_thread(send, smtp_sink, "one")
    port = smtp_sink.port
    await smtp_sink.kill()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(send, smtp_sink)
    await smtp_sink.restart()
    await asyncio.to_thread(send, smtp_sink, "two")
    assert smtp_sink.port == port
    assert [mail.subject for mail in smtp_sink.messages] == ["one", "two"]


async def test_a_paused_sink_lets_the_sender_wait(smtp_sink: SmtpSink) -> None:
    await smtp_sink.pause()
    with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
        await asyncio.to_thread(send, smtp_sink, timeout=0.3)
    await smtp_sink.resume()
    await asyncio.to_thread(send, smtp_sink, "after")
    assert smtp_sink.messages[-1].subject == "after"


async def test_a_given_folder_is_kept_and_a_temporary_one_is_not(tmp_path: Path) -> None:
    async with SmtpSink(data_dir=tmp_path / "mail") as sink:
        await asyncio.to_thread(send, sink)
    assert len(list((tmp_path / "mail" / "new").iterdir())) == 1
    async with SmtpSink() as sink:
        folder = sink.data_dir
    await sink.stop()
    assert not folder.exists()


async def test_too_few_mails_are_a_timeout(smtp_sink: SmtpSink) -> None:
    with pytest.raises(TimeoutError, match="0 of 1 mails came"):
        await smtp_sink.wait_for(1, timeout_seconds=0.05)
