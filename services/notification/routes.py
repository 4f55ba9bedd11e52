"""HTTP of the notification service."""

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from services.notification.models import Notification, NotificationStatus
from shared.api import ApiResponse, PaginationDep, paginated_response
from shared.database import tenant_scope
from shared.service import ReadOnlyUnitOfWorkDep

__all__ = ["NotificationView", "router"]

router = APIRouter(prefix="/notifications", tags=["notifications"])


class NotificationView(BaseModel):
    """A mail as its readers see it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    merchant_id: UUID
    notification_type: str
    recipient: str
    status: NotificationStatus
    attempts: int
    error: str | None
    requested_at: datetime
    sent_at: datetime | None


@router.get("")
async def list_notifications(
    merchant_id: UUID, uow: ReadOnlyUnitOfWorkDep, page: PaginationDep, request: Request
) -> ApiResponse[list[NotificationView]]:
    """Mails of a merchant, newest first."""
    with tenant_scope(merchant_id):
        mails = uow.repository(Notification)
        total = await mails.count(merchant_id=merchant_id)
        notifications = await mails.find_all(
            merchant_id=merchant_id,
            order_by="-requested_at",
            offset=page.offset,
            limit=page.limit,
        )
    return paginated_response(
        [NotificationView.model_validate(notification) for notification in notifications],
        page=page.page,
        limit=page.limit,
        total=total,
        base_url=request.url.path,
        merchant_id=merchant_id,
    )
