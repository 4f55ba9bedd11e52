"""A service with every kind of parameter, body and answer, for the fuzzer."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Cookie, Depends, Header, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer
from sqlalchemy import text

from shared.api import (
    ApiResponse,
    PaginationDep,
    RateLimit,
    RequestContextDep,
    error_responses,
    only_services,
    paginated_response,
    raises,
    success_response,
)
from shared.config import ServiceSettings
from shared.errors import ConflictError, NotFoundError, SyncInProgressError
from shared.events import Contract
from shared.service import IdempotentRoute, Service, UnitOfWorkDep

__all__ = ["service"]


class Size(StrEnum):
    """Of a hat."""

    SMALL = "s"
    LARGE = "l"


class Money(BaseModel):
    """An amount in a currency."""

    model_config = ConfigDict(extra="forbid")

    cents: int = Field(ge=0, le=10**12)
    currency: str = Field(pattern="^[A-Z]{3}$")


class Hat(BaseModel):
    """What is sold."""

    kind: Literal["hat"]
    size: Size
    brim_cm: float = Field(ge=0, le=100, allow_inf_nan=False)


class Voucher(BaseModel):
    """What is sold, too."""

    kind: Literal["voucher"]
    valid_until: date


def _in_days(duration: timedelta) -> str:
    """Pydantic would write years and days without months, which RFC 3339 does not know."""
    return f"P{duration.days}DT{duration.seconds}S"


class NewOrder(BaseModel):
    """An order to be placed."""

    item: Annotated[Hat | Voucher, Field(discriminator="kind")]
    price: Money
    tags: list[Annotated[str, Field(max_length=20)]] = Field(default=[], max_length=5)
    notes: dict[str, str | int | None] = {}
    wanted_at: AwareDatetime | None = None
    patience: Annotated[timedelta, PlainSerializer(_in_days)] | None = None


class Order(NewOrder):
    """An order that was placed."""

    order_id: UUID


PLACED = Contract("evt.merchant.placed", NewOrder)

service = Service("shop-service", settings=ServiceSettings, publishes=[PLACED])
orders = APIRouter(prefix="/orders", tags=["orders"], route_class=IdempotentRoute)
other = APIRouter(tags=["other"])


@orders.post("", status_code=201)
@raises(ConflictError, SyncInProgressError)
async def place(order: NewOrder, uow: UnitOfWorkDep) -> ApiResponse[Order]:
    """Place an order."""
    if order.price.cents == 13:
        raise ConflictError("Not that much", current_state="superstitious")
    event = uow.outbox.add(PLACED, order)
    return success_response(Order(order_id=UUID(event.event_id), **dict(order)))


@orders.get("")
async def find(
    page: PaginationDep,
    uow: UnitOfWorkDep,
    size: Annotated[list[Size] | None, Query()] = None,
    after: UUID | None = None,
    price: Annotated[float | None, Query(ge=0, le=1000, allow_inf_nan=False)] = None,
    paid: bool | None = None,
    word: Annotated[str | None, Query(max_length=50)] = None,
) -> ApiResponse[list[str]]:
    """Find orders."""
    given: dict[str, Any] = {
        "size": size,
        "after": after,
        "price": price,
        "paid": paid,
        "word": word,
    }
    # What cannot be stored has to be refused before; PostgreSQL takes no NUL.
    found = await uow.session.scalar(text("SELECT cast(:word AS text)"), {"word": word})
    data = [] if found is None else [found]
    return paginated_response(
        data, page=page.page, limit=page.limit, total=5, base_url="/orders", **given
    )


@orders.get("/{order_id}", responses=error_responses(NotFoundError))
async def read(order_id: UUID, context: RequestContextDep) -> ApiResponse[dict[str, str]]:
    """Read one."""
    raise NotFoundError("No such order", resource="order", resource_id=order_id, at=context.path)


@orders.patch("/{order_id}")
async def change(
    order_id: Annotated[int, Path(ge=1, le=2**63 - 1)],
    note: Annotated[str, Body(embed=True, min_length=1, max_length=200)],
    x_reason: Annotated[str | None, Header(max_length=40, pattern="^[a-z ]*$")] = None,
    flavour: Annotated[str | None, Cookie(max_length=10)] = None,
) -> ApiResponse[dict[str, Any]]:
    """Change one."""
    return success_response({"id": order_id, "note": note, "why": x_reason, "how": flavour})


@orders.delete("/{order_id}", status_code=204)
async def remove(order_id: UUID) -> None:
    """Remove one; or not."""


@other.post("/anything")
async def anything(body: Annotated[Any, Body()] = None) -> ApiResponse[Any]:
    """Give back what comes."""
    return success_response(body)


@other.post("/contacts")
async def contact(
    mails: list[Annotated[str, Field(pattern="^[^@ ]+@[^@ ]+$")]],
) -> ApiResponse[int]:
    """Count addresses."""
    return success_response(len(mails))


class Lines(StreamingResponse):
    """Text, line by line."""

    media_type = "text/plain"


@other.get("/lines/{path:path}", response_class=Lines)
async def lines(path: str, count: Annotated[int, Query(ge=0, le=5)] = 2) -> Lines:
    """Stream."""

    async def stream() -> AsyncIterator[str]:
        for number in range(count):
            yield f"{number} {len(path)}\n"

    return Lines(stream())


@other.get("/neighbours", dependencies=[Depends(only_services("webhook-service"))])
async def neighbours() -> ApiResponse[None]:
    """Answer services alone."""
    return success_response(None)


@other.get("/seldom", dependencies=[Depends(RateLimit("5/minute"))])
async def seldom() -> ApiResponse[None]:
    """Answer a few times."""
    return success_response(None)


service.router.include_router(orders)
service.router.include_router(other)
