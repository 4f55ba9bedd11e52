"""Where the names of the first design live now, for the modules that handed them out then.

Services import them from these modules, and go on doing so: each of them reads its names here, and
loads one when it is asked for. The names that a module still defines by itself are not listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared._lazy import lazy_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NAMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "shared.api": {
        "shared.legacy.api.middleware": (
            "APIMiddleware",
            "setup_middleware",
        ),
        "shared.legacy.api.tracing": (
            "TracingMiddleware",
            "get_trace_context",
            "set_trace_context",
        ),
    },
    "shared.api.middleware": {
        "shared.legacy.api.middleware": (
            "APIMiddleware",
            "setup_middleware",
        ),
    },
    "shared.api.tracing": {
        "shared.legacy.api.tracing": (
            "TracingMiddleware",
            "get_trace_context",
            "set_trace_context",
        ),
    },
    "shared.config": {
        "shared.legacy.merged_config": (
            "flatten_config",
            "merged_config",
        ),
    },
    "shared.config.loader": {
        "shared.legacy.merged_config": (
            "flatten_config",
            "merged_config",
        ),
    },
    "shared.database": {
        "shared.legacy.database.config": (
            "DatabaseConfig",
            "create_database_config",
        ),
        "shared.legacy.database.dependencies": (
            "DBSessionDep",
            "get_database_health",
            "get_database_manager",
            "get_db_session",
            "set_database_manager",
        ),
        "shared.legacy.database.migrations": (
            "MigrationManager",
            "create_alembic_env_template",
        ),
        "shared.legacy.database.session": ("DatabaseSessionManager",),
    },
    "shared.database.config": {
        "shared.legacy.database.config": (
            "DatabaseConfig",
            "create_database_config",
        ),
    },
    "shared.database.dependencies": {
        "shared.legacy.database.dependencies": (
            "DBSessionDep",
            "get_database_health",
            "get_database_manager",
            "get_db_session",
            "set_database_manager",
        ),
    },
    "shared.database.migrations": {
        "shared.legacy.database.migrations": (
            "MigrationManager",
            "create_alembic_env_template",
        ),
    },
    "shared.database.session": {
        "shared.legacy.database.session": ("DatabaseSessionManager",),
    },
    "shared.errors": {
        "shared.platform.errors.analysis": (
            "AnalysisInProgressError",
            "AnalysisNotCancellableError",
            "AnalysisNotFoundError",
            "NoCurrentAnalysisError",
        ),
        "shared.platform.errors.catalog": (
            "ItemNotFoundError",
            "ParentSyncNotFoundError",
            "SyncInProgressError",
            "SyncNotCancellableError",
            "SyncNotFoundError",
            "SyncNotResumableError",
        ),
        "shared.platform.errors.notification": (
            "EmailProviderError",
            "InvalidRecipientError",
            "NotificationNotFoundError",
            "PreferencesNotFoundError",
            "TemplateNotFoundError",
            "TemplateRenderError",
            "UnsubscribedError",
        ),
        "shared.platform.errors.profile": (
            "ProfileAlreadyExistsError",
            "ProfileCreationFailedError",
            "ProfileNotFoundError",
        ),
        "shared.platform.errors.selfie": (
            "ImageTooLargeError",
            "ImageTooSmallError",
            "InvalidImageFormatError",
            "MultipleFacesDetectedError",
            "NoFaceDetectedError",
            "PoorImageQualityError",
            "SelfieNotFoundError",
        ),
    },
    "shared.errors.analysis": {
        "shared.platform.errors.analysis": (
            "AnalysisInProgressError",
            "AnalysisNotCancellableError",
            "AnalysisNotFoundError",
            "NoCurrentAnalysisError",
        ),
    },
    "shared.errors.catalog": {
        "shared.platform.errors.catalog": (
            "ItemNotFoundError",
            "ParentSyncNotFoundError",
            "SyncInProgressError",
            "SyncNotCancellableError",
            "SyncNotFoundError",
            "SyncNotResumableError",
        ),
    },
    "shared.errors.notification": {
        "shared.platform.errors.notification": (
            "EmailProviderError",
            "InvalidRecipientError",
            "NotificationNotFoundError",
            "PreferencesNotFoundError",
            "TemplateNotFoundError",
            "TemplateRenderError",
            "UnsubscribedError",
        ),
    },
    "shared.errors.profile": {
        "shared.platform.errors.profile": (
            "ProfileAlreadyExistsError",
            "ProfileCreationFailedError",
            "ProfileNotFoundError",
        ),
    },
    "shared.errors.selfie": {
        "shared.platform.errors.selfie": (
            "ImageTooLargeError",
            "ImageTooSmallError",
            "InvalidImageFormatError",
            "MultipleFacesDetectedError",
            "NoFaceDetectedError",
            "PoorImageQualityError",
            "SelfieNotFoundError",
        ),
    },
    "shared.errors.utils": {
        "shared.errors.foreign": (
            "E",
            "P",
            "T",
            "classify_http_error",
            "is_retryable_error",
            "with_error_mapping",
            "wrap_external_error",
        ),
    },
    "shared.events": {
        "shared.legacy.events.context": (
            "EventContext",
            "EventContextManager",
            "EventPayload",
        ),
        "shared.legacy.events.wrapper": ("EventWrapper",),
        "shared.legacy.messaging.domain_events": (
            "DomainEventPublisher",
            "DomainEventSubscriber",
        ),
        "shared.platform.streams": (
            "SERVICE_STREAM_MAP",
            "Streams",
            "get_stream_for_service",
            "get_stream_from_subject",
            "get_stream_subjects",
        ),
    },
    "shared.events.base": {
        "shared.platform.streams": ("Streams",),
        "shared.legacy.events.wrapper": (
            "EventWrapper",
            "TData",
        ),
    },
    "shared.events.base_publisher": {
        "shared.legacy.messaging.domain_events": ("DomainEventPublisher",),
    },
    "shared.events.base_subscriber": {
        "shared.legacy.messaging.domain_events": ("DomainEventSubscriber",),
    },
    "shared.events.catalog": {
        "shared.legacy.events.catalog": (
            "CatalogAIEnrichedEvent",
            "CatalogAnalyzeItemsCommand",
            "CatalogEnrichWithAICommand",
            "CatalogImagesProcessedEvent",
            "CatalogItemsAnalyzedEvent",
            "CatalogProcessImagesCommand",
            "CatalogSyncCompletedEvent",
            "CatalogSyncFailedEvent",
            "CatalogSyncInitialCommand",
            "CatalogSyncStartedEvent",
            "CatalogSyncUpdateCommand",
        ),
        "shared.platform.catalog": (
            "AI_ENRICHED",
            "ANALYZE_ITEMS",
            "CatalogAIEnrichedPayload",
            "CatalogAnalyzeItemsPayload",
            "CatalogCommands",
            "CatalogEnrichWithAIPayload",
            "CatalogEventPayload",
            "CatalogEvents",
            "CatalogImagesProcessedPayload",
            "CatalogItemsAnalyzedPayload",
            "CatalogProcessImagesPayload",
            "CatalogSyncCompletedPayload",
            "CatalogSyncFailedPayload",
            "CatalogSyncInitialPayload",
            "CatalogSyncStartedPayload",
            "CatalogSyncUpdatePayload",
            "ENRICH_WITH_AI",
            "IMAGES_PROCESSED",
            "ITEMS_ANALYZED",
            "PROCESS_IMAGES",
            "SYNC_COMPLETED",
            "SYNC_FAILED",
            "SYNC_INITIAL",
            "SYNC_STARTED",
            "SYNC_UPDATE",
        ),
    },
    "shared.events.catalog.types": {
        "shared.legacy.events.catalog": (
            "CatalogAIEnrichedEvent",
            "CatalogAnalyzeItemsCommand",
            "CatalogEnrichWithAICommand",
            "CatalogImagesProcessedEvent",
            "CatalogItemsAnalyzedEvent",
            "CatalogProcessImagesCommand",
            "CatalogSyncCompletedEvent",
            "CatalogSyncFailedEvent",
            "CatalogSyncInitialCommand",
            "CatalogSyncStartedEvent",
            "CatalogSyncUpdateCommand",
        ),
        "shared.platform.catalog": (
            "AI_ENRICHED",
            "ANALYZE_ITEMS",
            "CatalogAIEnrichedPayload",
            "CatalogAnalyzeItemsPayload",
            "CatalogCommands",
            "CatalogEnrichWithAIPayload",
            "CatalogEventPayload",
            "CatalogEvents",
            "CatalogImagesProcessedPayload",
            "CatalogItemsAnalyzedPayload",
            "CatalogProcessImagesPayload",
            "CatalogSyncCompletedPayload",
            "CatalogSyncFailedPayload",
            "CatalogSyncInitialPayload",
            "CatalogSyncStartedPayload",
            "CatalogSyncUpdatePayload",
            "ENRICH_WITH_AI",
            "IMAGES_PROCESSED",
            "ITEMS_ANALYZED",
            "PROCESS_IMAGES",
            "SYNC_COMPLETED",
            "SYNC_FAILED",
            "SYNC_INITIAL",
            "SYNC_STARTED",
            "SYNC_UPDATE",
        ),
    },
    "shared.events.context": {
        "shared.legacy.events.context": (
            "EventContext",
            "EventContextManager",
            "EventPayload",
            "T",
        ),
    },
    "shared.events.credit": {
        "shared.platform.credit": (
            "ACCOUNT_CREATED",
            "AccountCreatedPayload",
            "CreditEvents",
            "MERCHANT_CREATED",
            "MerchantCreatedPayload",
            "ORDER_UPDATED",
            "OrderLine",
            "OrderUpdatedPayload",
            "SUBSCRIPTION_RENEWED",
            "SubscriptionRenewedPayload",
        ),
    },
    "shared.events.credit.types": {
        "shared.platform.credit": (
            "ACCOUNT_CREATED",
            "AccountCreatedPayload",
            "CreditEvents",
            "MERCHANT_CREATED",
            "MerchantCreatedPayload",
            "ORDER_UPDATED",
            "OrderLine",
            "OrderUpdatedPayload",
            "SUBSCRIPTION_RENEWED",
            "SubscriptionRenewedPayload",
        ),
    },
    "shared.events.mappers": {
        "shared.platform.streams": (
            "SERVICE_STREAM_MAP",
            "get_stream_for_service",
            "get_stream_from_subject",
            "get_stream_subjects",
        ),
    },
    "shared.events.notification": {
        "shared.legacy.events.notification": (
            "BulkSendCompletedEvent",
            "EmailDeliveryFailedEvent",
            "EmailSentEvent",
            "SendEmailBulkCommand",
            "SendEmailCommand",
            "create_bulk_email_command",
            "create_send_email_command",
        ),
        "shared.platform.notification": (
            "BULK_SEND_COMPLETED",
            "BulkCompletedEventPayload",
            "EMAIL_FAILED",
            "EMAIL_SENT",
            "EmailFailedEventPayload",
            "EmailSentEventPayload",
            "NotificationCommands",
            "NotificationEvents",
            "Recipient",
            "SEND_BULK",
            "SEND_EMAIL",
            "SendEmailBulkCommandPayload",
            "SendEmailCommandPayload",
        ),
    },
    "shared.events.notification.helpers": {
        "shared.legacy.events.notification": (
            "create_bulk_email_command",
            "create_send_email_command",
        ),
    },
    "shared.events.notification.types": {
        "shared.legacy.events.notification": (
            "BulkSendCompletedEvent",
            "EmailDeliveryFailedEvent",
            "EmailSentEvent",
            "SendEmailBulkCommand",
            "SendEmailCommand",
        ),
        "shared.platform.notification": (
            "BULK_SEND_COMPLETED",
            "BulkCompletedEventPayload",
            "EMAIL_FAILED",
            "EMAIL_SENT",
            "EmailFailedEventPayload",
            "EmailSentEventPayload",
            "NotificationCommands",
            "NotificationEvents",
            "Recipient",
            "SEND_BULK",
            "SEND_EMAIL",
            "SendEmailBulkCommandPayload",
            "SendEmailCommandPayload",
        ),
    },
    "shared.events.scheduler": {
        "shared.platform.scheduler": (
            "CreateScheduleCommandPayload",
            "DeleteScheduleCommandPayload",
            "EXECUTE_IMMEDIATE",
            "EXECUTION_COMPLETED",
            "EXECUTION_FAILED",
            "EXECUTION_STARTED",
            "ExecuteImmediateCommandPayload",
            "ExecutionCompletedEventPayload",
            "ExecutionFailedEventPayload",
            "ExecutionStartedEventPayload",
            "ExecutionStatus",
            "PauseScheduleCommandPayload",
            "ResumeScheduleCommandPayload",
            "SCHEDULE_CREATE",
            "SCHEDULE_CREATED",
            "SCHEDULE_DELETE",
            "SCHEDULE_DELETED",
            "SCHEDULE_PAUSE",
            "SCHEDULE_PAUSED",
            "SCHEDULE_RESUME",
            "SCHEDULE_RESUMED",
            "SCHEDULE_TRIGGER",
            "SCHEDULE_TRIGGERED",
            "SCHEDULE_UPDATE",
            "SCHEDULE_UPDATED",
            "ScheduleCreatedEventPayload",
            "ScheduleDeletedEventPayload",
            "SchedulePausedEventPayload",
            "ScheduleResumedEventPayload",
            "ScheduleTriggeredEventPayload",
            "ScheduleType",
            "ScheduleUpdatedEventPayload",
            "SchedulerCommands",
            "SchedulerEvents",
            "TriggerScheduleCommandPayload",
            "UpdateScheduleCommandPayload",
        ),
    },
    "shared.events.scheduler.types": {
        "shared.platform.scheduler": (
            "CreateScheduleCommandPayload",
            "DeleteScheduleCommandPayload",
            "EXECUTE_IMMEDIATE",
            "EXECUTION_COMPLETED",
            "EXECUTION_FAILED",
            "EXECUTION_STARTED",
            "ExecuteImmediateCommandPayload",
            "ExecutionCompletedEventPayload",
            "ExecutionFailedEventPayload",
            "ExecutionStartedEventPayload",
            "ExecutionStatus",
            "PauseScheduleCommandPayload",
            "ResumeScheduleCommandPayload",
            "SCHEDULE_CREATE",
            "SCHEDULE_CREATED",
            "SCHEDULE_DELETE",
            "SCHEDULE_DELETED",
            "SCHEDULE_PAUSE",
            "SCHEDULE_PAUSED",
            "SCHEDULE_RESUME",
            "SCHEDULE_RESUMED",
            "SCHEDULE_TRIGGER",
            "SCHEDULE_TRIGGERED",
            "SCHEDULE_UPDATE",
            "SCHEDULE_UPDATED",
            "ScheduleCreatedEventPayload",
            "ScheduleDeletedEventPayload",
            "SchedulePausedEventPayload",
            "ScheduleResumedEventPayload",
            "ScheduleTriggeredEventPayload",
            "ScheduleType",
            "ScheduleUpdatedEventPayload",
            "SchedulerCommands",
            "SchedulerEvents",
            "TriggerScheduleCommandPayload",
            "UpdateScheduleCommandPayload",
        ),
    },
    "shared.mappers": {
        "shared.legacy.mappers.base": ("BaseMapper",),
        "shared.legacy.mappers.crud_mapper": ("CRUDMapper",),
    },
    "shared.mappers.base": {
        "shared.legacy.mappers.base": (
            "BaseMapper",
            "CreateT",
            "ModelT",
            "ResponseT",
            "UpdateT",
        ),
    },
    "shared.mappers.crud_mapper": {
        "shared.legacy.mappers.crud_mapper": (
            "CRUDMapper",
            "InT",
            "ModelT",
            "OutT",
            "PatchT",
        ),
    },
    "shared.messaging": {
        "shared.legacy.messaging.dependencies": (
            "DepKeys",
            "ServiceDependencies",
        ),
        "shared.legacy.messaging.domain_events": (
            "DomainEventPublisher",
            "DomainEventSubscriber",
        ),
        "shared.legacy.messaging.event_publisher": ("JetStreamEventPublisher",),
        "shared.legacy.messaging.event_subscriber": ("JetStreamEventSubscriber",),
        "shared.legacy.messaging.jetstream_wrapper": ("JetStreamWrapper",),
    },
    "shared.messaging.dependencies": {
        "shared.legacy.messaging.dependencies": (
            "DepKeys",
            "ServiceDependencies",
            "T",
        ),
    },
    "shared.messaging.jetstream_wrapper": {
        "shared.legacy.messaging.jetstream_wrapper": (
            "JetStreamWrapper",
            "T",
        ),
    },
    "shared.messaging.publisher": {
        "shared.legacy.messaging.event_publisher": ("JetStreamEventPublisher",),
    },
    "shared.messaging.subscriber": {
        "shared.legacy.messaging.event_subscriber": ("JetStreamEventSubscriber",),
    },
    "shared.utils.idempotency_key_generator": {
        "shared.idempotency": ("generate_idempotency_key",),
    },
    "shared.utils.logger": {
        "shared.logging": (
            "ConsoleFormatter",
            "JsonFormatter",
            "ServiceLogger",
            "create_logger",
            "request_context",
        ),
    },
}
"""Module of the first design, module of today, names."""


def names_of_first_design(module: str) -> dict[str, str]:
    """Return the names that `module` hands on, each with the module where it lives now."""
    return {name: home for home, names in NAMES[module].items() for name in names}


def handed_on(module: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a module that hands on names of the first design."""
    return lazy_names(module, names_of_first_design(module))
