"""Where the names of the first design live now, for the modules that handed them out then.

Services import them from these modules, and go on doing so. Packages and modules that hold more
than old names read those here, and load one when it is asked for; a module of which only the path
is left imports its names from where they live, and is not listed.
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
    "shared.config": {
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
    "shared.database.migrations": {
        "shared.legacy.database.migrations": (
            "MigrationManager",
            "create_alembic_env_template",
        ),
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
    "shared.messaging.publisher": {
        "shared.legacy.messaging.event_publisher": ("JetStreamEventPublisher",),
    },
    "shared.messaging.subscriber": {
        "shared.legacy.messaging.event_subscriber": ("JetStreamEventSubscriber",),
    },
}
"""Module of the first design, module of today, names."""


def names_of_first_design(module: str) -> dict[str, str]:
    """Return the names that `module` hands on, each with the module where it lives now."""
    return {name: home for home, names in NAMES[module].items() for name in names}


def handed_on(module: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a module that hands on names of the first design."""
    return lazy_names(module, names_of_first_design(module))
