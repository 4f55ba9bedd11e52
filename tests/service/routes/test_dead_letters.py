"""Dead letters over HTTP, and an effect that happens once however a replay ends."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from prometheus_client import REGISTRY
from pydantic import BaseModel, Field
from sqlalchemy import text

from shared.config import DatabaseSettings, NatsSettings, ServiceSettings
from shared.delivery import UnitOfWork
from shared.errors import ValidationError
from shared.events import CONVENTION, Contract, Envelope
from shared.messaging import DeadLetters, OutgoingMessage
from shared.service import Application, Service
from shared.testing import eventually
from tests.service.test_application import running


class Payment(BaseModel):
    amount: int = Field(gt=0)


PAY = Contract("evt.merchant.paid", Payment)
DURABLE = "pay-service-pay"


def pay_service(mended: Callable[[], bool]) -> Service[ServiceSettings]:
    service = Service("pay-service", version="4.5.6", streams=[CONVENTION.of(PAY)])

    @service.handles(PAY)
    async def pay(payment: Payment, uow: UnitOfWork) -> None:
        await uow.session.execute(text("CREATE TABLE IF NOT EXISTS effects (amount int)"))
        await uow.session.execute(
            text("INSERT INTO effects VALUES (:amount)"), {"amount": payment.amount}
        )
        if not mended():
            raise ValidationError("not yet")

    return service


def payment(amount: int) -> OutgoingMessage:
    envelope = Envelope.create(PAY, Payment(amount=amount), source_service="tests")
    return OutgoingMessage(PAY.subject, envelope.encode(), envelope.headers(), envelope.message_id)


async def effects(application: Application[ServiceSettings]) -> list[int]:
    async with application.database.transaction() as session:
        if await session.scalar(text("SELECT to_regclass('effects')")) is None:
            return []
        return list(await session.scalars(text("SELECT amount FROM effects ORDER BY amount")))


async def had(application: Application[ServiceSettings], amount: int) -> bool:
    return amount in await effects(application)


async def listed(letters: DeadLetters, count: int) -> bool:
    return len(await letters.list()) == count


async def test_a_replay_killed_between_its_steps_has_its_effect_once(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    mended = False
    forgetful = nats_settings.model_copy(update={"dedupe_window_seconds": 0.1})
    service = pay_service(lambda: mended)
    async with running(service, database_settings, forgetful) as (application, _):
        letters = application.provisions.get(DeadLetters)
        await application.bus.publisher.publish(payment(5))
        found = await eventually(letters.list)
        assert (found[0].sequence, found[0].version) == (1, "4.5.6")
        labels = {"service": "pay-service", "subscriber": DURABLE}
        assert REGISTRY.get_sample_value("dead_letters", labels) is not None
        mended = True
        script = Path(__file__).parents[2] / "messaging" / "dying_replay.py"
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), nats_settings.servers[0], "audit"
        )
        assert await process.wait() == -9
        await eventually(lambda: had(application, 5))
        assert await effects(application) == [5]
        assert len(await letters.list()) == 1
        await asyncio.sleep(1)  # the stream forgets the id of the first replay
        ack = await letters.replay(1)
        assert not ack.duplicate
        follower = payment(6)
        await application.bus.publisher.publish(follower)
        await eventually(lambda: had(application, 6))
        assert await effects(application) == [5, 6]
        assert await letters.list() == []


async def test_dead_letters_are_worked_on_over_http(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    mended = False
    service = pay_service(lambda: mended)
    async with running(service, database_settings, nats_settings) as (application, client):
        letters = application.provisions.get(DeadLetters)
        await application.bus.publisher.publish_all([payment(n) for n in range(1, 6)])
        await eventually(lambda: listed(letters, 5))

        page = (await client.get("/dead-letters", params={"durable": DURABLE, "limit": 3})).json()
        assert [letter["sequence"] for letter in page["data"]["letters"]] == [1, 2, 3]
        assert page["data"]["next_after"] == 3
        assert page["data"]["letters"][0]["version"] == "4.5.6"
        (group,) = (await client.get("/dead-letters/groups")).json()["data"]
        assert (group["count"], group["durable"]) == (5, DURABLE)
        whole = (await client.get("/dead-letters/1")).json()["data"]
        amount = Envelope.decode(whole["body"]).payload["amount"]

        assert (await client.get("/dead-letters/99")).status_code == 404
        assert (await client.post("/dead-letters/99/replay")).status_code == 404
        for query in ("durable=a.b", "colour=red", "since=0", "since=1.5e3", "since=-1e-152"):
            assert (await client.get(f"/dead-letters?{query}")).status_code == 422, query
        wrong: list[tuple[str, dict[str, object]]] = [
            ("1/replay", {"values": {"payload.amount": -1}}),
            ("1/replay", {"body_base64": "e30"}),
            ("1/replay", {"body": "{}", "body_base64": "e30="}),
            ("replay", {}),
            ("2/discard", {}),
            ("2/discard", {"reason": ""}),
            ("2/discard", {"reason": " "}),
        ]
        for path, body in wrong:
            answer = await client.post(f"/dead-letters/{path}", json=body)
            assert answer.status_code == 422, (path, body)

        mended = True
        good = {"values": {"payload.amount": amount + 100}, "reason": "typo"}
        answer = await client.post("/dead-letters/1/replay", json=good)
        assert answer.json()["data"]["stream"] == "MERCHANT"
        why = {"reason": "shop is gone"}
        assert (await client.post("/dead-letters/2/discard", json=why)).status_code == 200
        wanted = {"where": {"durable": DURABLE}, "dry_run": True}
        dry = (await client.post("/dead-letters/replay", json=wanted)).json()["data"]
        assert dry == {"dry_run": True, "done": [3, 4, 5], "failed": [], "more": False}
        wanted = {"sequences": [3, 99], "limit": 2}
        done = (await client.post("/dead-letters/replay", json=wanted)).json()["data"]
        assert done["done"] == [3]
        assert [failure["code"] for failure in done["failed"]] == ["NOT_FOUND"]
        wanted = {"where": {}, "reason": "obsolete"}
        done = (await client.post("/dead-letters/discard", json=wanted)).json()["data"]
        assert done["done"] == [4, 5]
        await eventually(lambda: had(application, amount + 100))

        audit = (await client.get("/dead-letters/audit")).json()["data"]
        assert [(r["action"], r["reason"]) for r in audit["records"]] == [
            ("replayed", "typo"),
            ("discarded", "shop is gone"),
            ("replayed", ""),
            ("discarded", "obsolete"),
            ("discarded", "obsolete"),
        ]
        assert audit["records"][0]["actor"].startswith("operator at ")


def test_in_prod_they_are_served_only_if_the_settings_say_so() -> None:
    settings = ServiceSettings(environment="prod")
    app = Application(Service("hello-service"), settings).app
    assert "/api/v1/dead-letters" not in app.openapi()["paths"]
