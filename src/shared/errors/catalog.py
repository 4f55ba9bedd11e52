"""A path of the first design: what it names lives in `shared.platform.errors.catalog`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.platform.errors.catalog import (
        ItemNotFoundError,
        ParentSyncNotFoundError,
        SyncInProgressError,
        SyncNotCancellableError,
        SyncNotFoundError,
        SyncNotResumableError,
    )

__all__ = [
    "ItemNotFoundError",
    "ParentSyncNotFoundError",
    "SyncInProgressError",
    "SyncNotCancellableError",
    "SyncNotFoundError",
    "SyncNotResumableError",
]

__getattr__, __dir__ = handed_on(__name__)
