"""Shopify's part: signed webhooks over HTTP, many at a time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from demo.day import Delivery

__all__ = ["Answer", "Sender"]

_AT_ONCE = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """What a delivery was answered."""

    delivery: Delivery
    status: int
    body: dict[str, Any]


class Sender:
    """Sends deliveries to the webhook service and keeps every answer."""

    def __init__(self, address: str) -> None:
        self.answers: list[Answer] = []
        self._client = httpx.AsyncClient(
            base_url=f"{address}/api/v1/webhooks/shopify/", timeout=30.0, trust_env=False
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def send(
        self, deliveries: Iterable[Delivery], progress: Callable[[], None] = lambda: None
    ) -> None:
        """Send all, a dozen at a time; those of several copies at once.

        Raises:
            httpx.HTTPError: the webhook service does not answer.
        """
        waiting = iter([one for delivery in deliveries for one in [delivery] * delivery.copies])

        async def work() -> None:
            for delivery in waiting:
                self.answers.append(await self._send(delivery))
                progress()

        async with asyncio.TaskGroup() as workers:
            for _ in range(_AT_ONCE):
                workers.create_task(work())

    async def _send(self, delivery: Delivery) -> Answer:
        secret = "forged" if delivery.forged else delivery.shop.secret
        digest = hmac.digest(secret.encode(), delivery.body, hashlib.sha256)
        response = await self._client.post(
            delivery.topic,
            content=delivery.body,
            headers={
                "Content-Type": "application/json",
                "X-Shopify-Topic": delivery.topic,
                "X-Shopify-Shop-Domain": delivery.shop.domain,
                "X-Shopify-Webhook-Id": delivery.webhook_id,
                "X-Shopify-Hmac-Sha256": base64.b64encode(digest).decode(),
            },
        )
        return Answer(delivery, response.status_code, response.json())
