"""Subjects, payloads, wrappers and contracts of the catalogue's life."""

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.platform.streams import declare


class CatalogCommands:
    """What the catalogue services can be asked."""

    CATALOG_SYNC_INITIAL = "cmd.catalog.sync_initial"
    CATALOG_SYNC_UPDATE = "cmd.catalog.sync_update"
    CATALOG_PROCESS_IMAGES = "cmd.catalog.process_images"
    CATALOG_ANALYZE_ITEMS = "cmd.catalog.analyze_items"
    CATALOG_ENRICH_WITH_AI = "cmd.catalog.enrich_with_ai"


class CatalogEvents:
    """What the catalogue services tell."""

    CATALOG_SYNC_STARTED = "evt.catalog.sync_started"
    CATALOG_SYNC_COMPLETED = "evt.catalog.sync_completed"
    CATALOG_SYNC_FAILED = "evt.catalog.sync_failed"
    CATALOG_IMAGES_PROCESSED = "evt.catalog.images_processed"
    CATALOG_ITEMS_ANALYZED = "evt.catalog.items_analyzed"
    CATALOG_AI_ENRICHED = "evt.catalog.ai_enriched"


class CatalogSyncInitialPayload(BaseModel):
    """Read a merchant's whole catalogue from `source`."""

    merchant_id: UUID
    source: str
    sync_type: str
    webhook_url: str | None = None


class CatalogSyncUpdatePayload(BaseModel):
    """Take over the given items as they now stand."""

    merchant_id: UUID
    items: list[dict[str, Any]]
    job_id: str | None = None


class CatalogProcessImagesPayload(BaseModel):
    """Fetch and measure the images of the given items."""

    merchant_id: UUID
    items: list[dict[str, Any]]
    job_id: str | None = None


class CatalogAnalyzeItemsPayload(BaseModel):
    """Analyse the given items."""

    merchant_id: UUID
    items: list[dict[str, Any]]
    job_id: str | None = None


class CatalogEnrichWithAIPayload(BaseModel):
    """Enrich the given items."""

    merchant_id: UUID
    items: list[dict[str, Any]]
    job_id: str | None = None


class CatalogEventPayload(BaseModel):
    """What every catalogue event says; fields it does not know, as older senders have, are kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    merchant_id: UUID
    job_id: str | None = None


class CatalogSyncStartedPayload(CatalogEventPayload):
    """A sync began."""

    source: str | None = None
    sync_type: str | None = None
    started_at: AwareDatetime | None = None


class CatalogSyncCompletedPayload(CatalogEventPayload):
    """A sync is through; of all items seen, some were new and some had changed."""

    items_total: int = Field(default=0, ge=0)
    items_created: int = Field(default=0, ge=0)
    items_updated: int = Field(default=0, ge=0)
    items_failed: int = Field(default=0, ge=0)
    duration_seconds: float | None = Field(default=None, ge=0)
    completed_at: AwareDatetime | None = None


class CatalogSyncFailedPayload(CatalogEventPayload):
    """A sync ended early; it can be resumed when `resumable`."""

    error_message: str | None = None
    error_code: str | None = None
    resumable: bool = False
    failed_at: AwareDatetime | None = None


class CatalogImagesProcessedPayload(CatalogEventPayload):
    """Images were fetched and measured."""

    processed: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    processed_at: AwareDatetime | None = None


class CatalogItemsAnalyzedPayload(CatalogEventPayload):
    """Items were analysed."""

    analyzed: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    analyzed_at: AwareDatetime | None = None


class CatalogAIEnrichedPayload(CatalogEventPayload):
    """Items were enriched."""

    enriched: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    enriched_at: AwareDatetime | None = None


SYNC_INITIAL = declare(CatalogCommands.CATALOG_SYNC_INITIAL, CatalogSyncInitialPayload)
SYNC_UPDATE = declare(CatalogCommands.CATALOG_SYNC_UPDATE, CatalogSyncUpdatePayload)
PROCESS_IMAGES = declare(CatalogCommands.CATALOG_PROCESS_IMAGES, CatalogProcessImagesPayload)
ANALYZE_ITEMS = declare(CatalogCommands.CATALOG_ANALYZE_ITEMS, CatalogAnalyzeItemsPayload)
ENRICH_WITH_AI = declare(CatalogCommands.CATALOG_ENRICH_WITH_AI, CatalogEnrichWithAIPayload)
SYNC_STARTED = declare(CatalogEvents.CATALOG_SYNC_STARTED, CatalogSyncStartedPayload)
SYNC_COMPLETED = declare(CatalogEvents.CATALOG_SYNC_COMPLETED, CatalogSyncCompletedPayload)
SYNC_FAILED = declare(CatalogEvents.CATALOG_SYNC_FAILED, CatalogSyncFailedPayload)
IMAGES_PROCESSED = declare(CatalogEvents.CATALOG_IMAGES_PROCESSED, CatalogImagesProcessedPayload)
ITEMS_ANALYZED = declare(CatalogEvents.CATALOG_ITEMS_ANALYZED, CatalogItemsAnalyzedPayload)
AI_ENRICHED = declare(CatalogEvents.CATALOG_AI_ENRICHED, CatalogAIEnrichedPayload)
