"""HTTP of the webhook service."""

from typing import Annotated

import pydantic
from fastapi import APIRouter, Header, Path, Request, Response, status
from pydantic import BaseModel
from pydantic_core import to_json

from services.webhook import shopify
from services.webhook.models import DeliveryStatus, WebhookDelivery
from services.webhook.settings import WebhookSettings
from shared.api import ApiResponse, raises, success_response
from shared.database import where
from shared.delivery import UnitOfWork, UnitOfWorkFactory
from shared.errors import UnauthorizedError, ValidationError
from shared.idempotency import idempotency_key
from shared.service import Provided, UnitOfWorkDep

__all__ = ["Receipt", "router"]

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


class Receipt(BaseModel):
    """What became of a delivery. ``event_id`` is that of the event which it led to."""

    webhook_id: str
    status: DeliveryStatus
    duplicate: bool = False
    event_id: str | None = None


@router.post(
    "/shopify/{topic:path}",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        200: {"description": "It was taken before", "model": ApiResponse[Receipt]},
    },
    # The route reads the bytes that were signed, so FastAPI does not know of a body.
    openapi_extra={
        "requestBody": {
            "description": "The webhook as Shopify signed it.",
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
@raises(UnauthorizedError, ValidationError)
async def receive(
    topic: Annotated[str, Path(max_length=128)],
    request: Request,
    response: Response,
    uow: UnitOfWorkDep,
    unit_of_work: Annotated[UnitOfWorkFactory, Provided(UnitOfWorkFactory)],
    settings: Annotated[WebhookSettings, Provided(WebhookSettings)],
    shop_domain: Annotated[str, Header(alias="X-Shopify-Shop-Domain", max_length=255)],
    webhook_id: Annotated[str, Header(alias="X-Shopify-Webhook-Id", max_length=128)],
    signature: Annotated[str, Header(alias="X-Shopify-Hmac-Sha256")],
) -> ApiResponse[Receipt]:
    """Take one webhook: check who signed it, keep it, tell the platform.

    202 when taken, 200 when it was taken before. 401 when the shop did not sign it. 422 when it
    cannot be read; it is kept all the same, and taken if it comes again in a form that can be.
    """
    body = await request.body()
    if not shopify.is_genuine(body, signature, shop_domain, settings.shopify.secrets):
        raise UnauthorizedError(
            "The signature does not match", auth_type="shopify-hmac", shop_domain=shop_domain
        )
    topic = shopify.canonical_topic(topic)
    delivery: dict[str, object] = {
        "shop_domain": shop_domain,
        "webhook_id": webhook_id,
        "topic": topic,
        "body": body,
    }
    try:
        fact = shopify.read(topic, body, shop_domain, settings.shopify)
    except pydantic.ValidationError as error:
        mistakes = _mistakes(error)
        rejected = {"status": DeliveryStatus.REJECTED, "error": to_json(mistakes).decode()}
        async with unit_of_work() as other:  # the refusal rolls that of the request back
            await _keep(other, delivery | rejected)
        raise ValidationError(
            f"This {topic} webhook cannot be read", validation_errors=mistakes
        ) from error
    taken = DeliveryStatus.IGNORED if fact is None else DeliveryStatus.ACCEPTED
    if not await _keep(uow, delivery | {"status": taken, "error": None}):
        response.status_code = status.HTTP_200_OK
        return success_response(Receipt(webhook_id=webhook_id, status=taken, duplicate=True))
    event_id = None
    if fact is not None:
        event = uow.outbox.add(
            fact.contract,
            fact.payload,
            key=shop_domain,
            idempotency_key=idempotency_key("shopify", shop_domain, webhook_id),
        )
        event_id = event.event_id
    return success_response(Receipt(webhook_id=webhook_id, status=taken, event_id=event_id))


async def _keep(uow: UnitOfWork, delivery: dict[str, object]) -> bool:
    """Keep a delivery; False if it was taken before. One that was rejected may come again."""
    kept = await uow.repository(WebhookDelivery).upsert_many(
        [delivery],
        conflict=["shop_domain", "webhook_id"],
        change=["topic", "body", "status", "error"],
        when=where(status=DeliveryStatus.REJECTED),
    )
    return bool(kept)


def _mistakes(error: pydantic.ValidationError) -> list[dict[str, str]]:
    return [
        {
            "field": ".".join(str(part) for part in mistake["loc"]),
            "message": mistake["msg"],
            "type": mistake["type"],
        }
        for mistake in error.errors(include_url=False, include_context=False, include_input=False)
    ]
