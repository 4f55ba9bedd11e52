"""Errors of the catalogue service."""

from __future__ import annotations

from shared.errors.base import ConflictError, NotFoundError


class SyncInProgressError(ConflictError):
    """A merchant's catalogue is synced once at a time."""

    code = "SYNC_IN_PROGRESS"
    message = "Another sync is already in progress"
    current_sync_id: str | None = None
    merchant_id: str | None = None


class SyncNotFoundError(NotFoundError):
    """No such sync."""

    code = "SYNC_NOT_FOUND"
    sync_id: str | None = None


class SyncNotResumableError(ConflictError):
    """A sync in this status cannot go on."""

    code = "SYNC_NOT_RESUMABLE"
    sync_id: str | None = None
    sync_status: str | None = None
    reason: str | None = None


class SyncNotCancellableError(ConflictError):
    """A sync in this status cannot be cancelled."""

    code = "SYNC_NOT_CANCELLABLE"
    sync_id: str | None = None
    sync_status: str | None = None


class ItemNotFoundError(NotFoundError):
    """No such item in the merchant's catalogue."""

    code = "ITEM_NOT_FOUND"
    item_id: str | None = None
    merchant_id: str | None = None


class ParentSyncNotFoundError(NotFoundError):
    """The sync that this one follows does not exist."""

    code = "PARENT_SYNC_NOT_FOUND"
    parent_sync_id: str | None = None
