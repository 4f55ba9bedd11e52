import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from services.notification.email_sender import EmailSender
from services.notification.mailer import Mailer
from services.notification.models import Notification
from services.notification.service import service
from services.notification.settings import SmtpSettings
from services.notification.templates import Rendered, Templates
from shared.database import system_scope
from shared.delivery import UnitOfWork
from shared.dev import SmtpSink
from shared.errors import ConflictError
from shared.events import Envelope
from shared.events.notification import SEND_EMAIL, Recipient, SendEmailCommandPayload
from shared.messaging import DeadLetter, DeadLetters
from shared.platform.errors.notification import (
    EmailProviderError,
    InvalidRecipientError,
    TemplateNotFoundError,
    TemplateRenderError,
)
from shared.service import Application
from shared.testing import eventually

from .conftest import Start, client_of

MERCHANT = UUID(int=1)
TEMPLATES = Path(__file__).parents[2] / "services/notification/mails"
CONTENT: dict[str, Any] = {"shop": "Hüte & Co", "balance": 3, "threshold": 5}


def command(
    *,
    notification_type: str = "low_balance",
    email: str = "owner@blue-hat.example",
    content: dict[str, Any] | None = None,
) -> SendEmailCommandPayload:
    return SendEmailCommandPayload(
        notification_type=notification_type,
        recipient=Recipient(
            merchant_id=MERCHANT,
            merchant_domain="blue-hat.myshopify.com",
            email=email,
            unsubscribe_token="",
            dynamic_content=CONTENT if content is None else content,
        ),
    )


def envelope(key: str = "k-1") -> Envelope:
    return Envelope.create(SEND_EMAIL, command(), source_service="test", idempotency_key=key)


async def ask(application: Application[Any], *, key: str = "k-1", **changes: Any) -> None:
    async with UnitOfWork(application.database, service="test") as uow:
        uow.outbox.add(SEND_EMAIL, command(**changes), idempotency_key=key)


async def rows(application: Application[Any]) -> list[Notification]:
    with system_scope("test"):
        async with application.database.transaction() as session:
            return list(await session.scalars(select(Notification)))


async def published(application: Application[Any]) -> list[Envelope]:
    """The events of the service; the commands of the tests are in the same outbox."""
    async with application.database.transaction() as session:
        bodies = await session.scalars(
            text("SELECT body FROM outbox WHERE subject LIKE 'evt.%' ORDER BY id")
        )
        return [Envelope.decode(bytes(body)) for body in bodies]


@pytest.fixture
async def running(start_notification: Start) -> AsyncIterator[Application[Any]]:
    async with start_notification() as application:
        yield application


async def test_a_command_becomes_a_mail_in_text_and_html(
    running: Application[Any], smtp_sink: SmtpSink
) -> None:
    await ask(running)
    (mail,) = await smtp_sink.wait_for(1)
    assert mail.recipients == ("owner@blue-hat.example",)
    assert mail.subject == "Hüte & Co: 3 credits left"
    text_part = mail.message.get_body(("plain",))
    html_part = mail.message.get_body(("html",))
    assert text_part is not None
    assert html_part is not None
    assert "the account of Hüte & Co has 3 credits" in text_part.get_content()
    assert "Hüte &amp; Co" in html_part.get_content()

    async def told() -> bool:
        return len(await published(running)) == 1

    await eventually(told)
    (event,) = await published(running)
    (row,) = await rows(running)
    assert event.subject == "evt.notification.email.sent"
    assert event.payload["notification_id"] == str(row.id)
    assert event.payload["provider_message_id"] == mail.message["Message-ID"]
    assert (row.status, row.attempts) == ("sent", 1)
    async with client_of(running) as client:
        mine = (await client.get(f"/api/v1/notifications?merchant_id={MERCHANT}")).json()
        others = (await client.get(f"/api/v1/notifications?merchant_id={UUID(int=2)}")).json()
    assert [item["status"] for item in mine["data"]] == ["sent"]
    assert mine["pagination"]["total"] == 1
    assert others["data"] == []


async def test_one_mail_however_often_the_command_comes(
    running: Application[Any], smtp_sink: SmtpSink
) -> None:
    sender = running.provisions.get(EmailSender)
    for _ in range(3):
        await sender.send(command(), envelope())
    assert len(smtp_sink.messages) == 1
    assert len(await rows(running)) == len(await published(running)) == 1


async def test_of_attempts_at_once_one_speaks_to_the_server(
    running: Application[Any], smtp_sink: SmtpSink
) -> None:
    sender = running.provisions.get(EmailSender)
    outcomes = await asyncio.gather(
        *(sender.send(command(), envelope()) for _ in range(5)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} <= {type(None), ConflictError}
    assert len(smtp_sink.messages) == 1


async def lease_until(running: Application[Any], moment: str) -> None:
    with system_scope("test"):
        async with running.database.transaction() as session:
            await session.execute(update(Notification).values(leased_until=text(moment)))


async def test_an_attempt_that_died_is_taken_over_after_its_lease(
    running: Application[Any], smtp_sink: SmtpSink
) -> None:
    sender = running.provisions.get(EmailSender)
    await smtp_sink.pause()
    attempt = asyncio.create_task(sender.send(command(), envelope()))

    async def claimed() -> bool:
        return bool(await rows(running))

    await eventually(claimed)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await smtp_sink.resume()
    await lease_until(running, "now() + interval '1 hour'")  # however long the cancelling took
    with pytest.raises(ConflictError):
        await sender.send(command(), envelope())
    await lease_until(running, "now()")
    await sender.send(command(), envelope())
    (row,) = await rows(running)
    assert (row.status, row.attempts) == ("sent", 2)
    assert {mail.message["Message-ID"] for mail in smtp_sink.messages} == {
        f"<{row.id}@glam.example>"
    }


async def test_an_outage_of_the_mail_server_delays_the_mail(
    running: Application[Any], smtp_sink: SmtpSink
) -> None:
    await smtp_sink.kill()
    await ask(running)

    async def waiting() -> bool:
        return [row.status for row in await rows(running)] == ["waiting"]

    await eventually(waiting)
    await smtp_sink.restart()
    await smtp_sink.wait_for(1, timeout_seconds=30)

    async def sent() -> bool:
        return [row.status for row in await rows(running)] == ["sent"]

    await eventually(sent)
    assert len(smtp_sink.messages) == 1


async def test_a_temporary_refusal_is_tried_again(
    running: Application[Any], smtp_sink: SmtpSink
) -> None:
    sender = running.provisions.get(EmailSender)
    smtp_sink.answer = "451 4.3.0 Try again later"
    with pytest.raises(EmailProviderError):
        await sender.send(command(), envelope())
    assert [(row.status, row.attempts) for row in await rows(running)] == [("waiting", 1)]
    smtp_sink.answer = None
    await sender.send(command(), envelope())
    assert [(row.status, row.attempts) for row in await rows(running)] == [("sent", 2)]


async def test_a_permanent_refusal_is_told_and_not_tried_again(
    running: Application[Any], smtp_sink: SmtpSink
) -> None:
    smtp_sink.answer = "554 5.7.1 Not here"
    await ask(running)

    async def failed() -> bool:
        return [row.status for row in await rows(running)] == ["failed"]

    await eventually(failed)
    (event,) = await published(running)
    assert event.subject == "evt.notification.email.failed"
    assert event.payload["error_code"] == "554"
    assert event.payload["will_retry"] is False
    smtp_sink.answer = None
    await running.provisions.get(EmailSender).send(command(), envelope())
    assert smtp_sink.messages == ()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"notification_type": "gift"}, TemplateNotFoundError, "low_balance"),
        ({"notification_type": "../low_balance"}, TemplateNotFoundError, "low_balance"),
        ({"content": {"shop": "x"}}, TemplateRenderError, "balance, threshold"),
        ({"email": "nobody"}, InvalidRecipientError, "nobody"),
    ],
)
async def test_a_command_that_makes_no_mail_becomes_a_dead_letter(
    running: Application[Any], changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    await ask(running, **changes)
    letters: list[DeadLetter] = []

    async def dead() -> bool:
        letters[:] = await running.provisions.get(DeadLetters).list()
        return bool(letters)

    await eventually(dead)
    (letter,) = letters
    assert str(letter.error_type).endswith(error.__name__)
    assert words in str(letter.error_message)
    assert letter.attempts == 1
    assert await rows(running) == []


async def test_the_dead_letters_stream_is_there_before_anything_died(
    running: Application[Any],
) -> None:
    assert await running.provisions.get(DeadLetters).list() == []


def test_a_subject_is_one_line_and_headers_cannot_be_smuggled_in() -> None:
    words = Templates(TEMPLATES).render("low_balance", CONTENT | {"shop": "x\r\nBcc: y@z.example"})
    mail = Mailer(SmtpSettings()).compose("1", "a@b.example", words)
    assert mail["Bcc"] is None
    assert mail["Subject"] == "x Bcc: y@z.example: 3 credits left"


@pytest.mark.parametrize("address", ["", "nobody", "a@b.example\nBcc: c@d.example", "a b@c", "@"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(InvalidRecipientError):
        Mailer(SmtpSettings()).compose("1", address, Rendered("s", "t", "h"))


def test_templates_run_in_a_sandbox(tmp_path: Path) -> None:
    for form in ("subject.txt", "txt", "html"):
        (tmp_path / f"evil.{form}").write_text("{{ ''.__class__.__mro__ }}")
        (tmp_path / f"broken.{form}").write_text("{{ a / 0 }}")
    (tmp_path / "half.txt").write_text("no subject, no html")
    templates = Templates(tmp_path)
    assert templates.types == {"evil", "broken"}
    for name in templates.types:
        with pytest.raises(TemplateRenderError):
            templates.render(name, {"a": 1})


def test_it_answers_one_command_only() -> None:
    assert [handler.contract.subject for handler in service.handlers] == [SEND_EMAIL.subject]
