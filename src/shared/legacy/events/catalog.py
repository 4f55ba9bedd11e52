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


class CatalogSyncStartedEvent(EventWrapper[dict[str, Any]]):
    """The news of a sync begun, with open data."""

    subject: str = CatalogEvents.CATALOG_SYNC_STARTED
    data: dict[str, Any] = Field(default_factory=dict)


class CatalogSyncCompletedEvent(EventWrapper[dict[str, Any]]):
    """The news of a sync that is through, with open data."""

    subject: str = CatalogEvents.CATALOG_SYNC_COMPLETED
    data: dict[str, Any] = Field(default_factory=dict)


class CatalogSyncFailedEvent(EventWrapper[dict[str, Any]]):
    """The news of a sync that ended early, with open data."""

    subject: str = CatalogEvents.CATALOG_SYNC_FAILED
    data: dict[str, Any] = Field(default_factory=dict)
    error_message: str | None = None


class CatalogImagesProcessedEvent(EventWrapper[dict[str, Any]]):
    """The news of images fetched and measured, with open data."""

    subject: str = CatalogEvents.CATALOG_IMAGES_PROCESSED
    data: dict[str, Any] = Field(default_factory=dict)


class CatalogItemsAnalyzedEvent(EventWrapper[dict[str, Any]]):
    """The news of items analysed, with open data."""

    subject: str = CatalogEvents.CATALOG_ITEMS_ANALYZED
    data: dict[str, Any] = Field(default_factory=dict)


class CatalogAIEnrichedEvent(EventWrapper[dict[str, Any]]):
    """The news of items enriched, with open data."""

    subject: str = CatalogEvents.CATALOG_AI_ENRICHED
    data: dict[str, Any] = Field(default_factory=dict)
    enrichment_details: dict[str, Any] | None = None
