"""Commands and events of the catalogue as typed wrappers."""

from typing import Any

from pydantic import Field

from shared.legacy.events.wrapper import EventWrapper
from shared.platform.catalog import (
    CatalogAnalyzeItemsPayload,
    CatalogCommands,
    CatalogEnrichWithAIPayload,
    CatalogEvents,
    CatalogProcessImagesPayload,
    CatalogSyncInitialPayload,
    CatalogSyncUpdatePayload,
)


class CatalogSyncInitialCommand(EventWrapper[CatalogSyncInitialPayload]):
    """The command to read a whole catalogue."""

    subject: str = CatalogCommands.CATALOG_SYNC_INITIAL


class CatalogSyncUpdateCommand(EventWrapper[CatalogSyncUpdatePayload]):
    """The command to take over changed items."""

    subject: str = CatalogCommands.CATALOG_SYNC_UPDATE


class CatalogProcessImagesCommand(EventWrapper[CatalogProcessImagesPayload]):
    """The command to fetch and measure images."""

    subject: str = CatalogCommands.CATALOG_PROCESS_IMAGES


class CatalogAnalyzeItemsCommand(EventWrapper[CatalogAnalyzeItemsPayload]):
    """The command to analyse items."""

    subject: str = CatalogCommands.CATALOG_ANALYZE_ITEMS


class CatalogEnrichWithAICommand(EventWrapper[CatalogEnrichWithAIPayload]):
    """The command to enrich items."""

    subject: str = CatalogCommands.CATALOG_ENRICH_WITH_AI


class _OpenEvent(EventWrapper[dict[str, Any]]):
    data: dict[str, Any] = Field(default_factory=dict)


class CatalogSyncStartedEvent(_OpenEvent):
    """The news of a sync begun, with open data."""

    subject: str = CatalogEvents.CATALOG_SYNC_STARTED


class CatalogSyncCompletedEvent(_OpenEvent):
    """The news of a sync that is through, with open data."""

    subject: str = CatalogEvents.CATALOG_SYNC_COMPLETED


class CatalogSyncFailedEvent(_OpenEvent):
    """The news of a sync that ended early, with open data."""

    subject: str = CatalogEvents.CATALOG_SYNC_FAILED
    error_message: str | None = None


class CatalogImagesProcessedEvent(_OpenEvent):
    """The news of images fetched and measured, with open data."""

    subject: str = CatalogEvents.CATALOG_IMAGES_PROCESSED


class CatalogItemsAnalyzedEvent(_OpenEvent):
    """The news of items analysed, with open data."""

    subject: str = CatalogEvents.CATALOG_ITEMS_ANALYZED


class CatalogAIEnrichedEvent(_OpenEvent):
    """The news of items enriched, with open data."""

    subject: str = CatalogEvents.CATALOG_AI_ENRICHED
    enrichment_details: dict[str, Any] | None = None
