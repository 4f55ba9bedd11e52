"""A service with one typed handler that does nothing, to see what handling itself takes."""

from shared.events.credit import ORDER_UPDATED, OrderUpdatedPayload
from shared.service import Service, ServiceSettings

__all__ = ["service"]

service = Service("reader-service", settings=ServiceSettings)


@service.handles(ORDER_UPDATED, concurrency=64, deadline_seconds=30)
async def read(order: OrderUpdatedPayload) -> None:
    """Take an order, and be done with it."""
