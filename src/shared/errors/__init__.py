"""Every error of the chassis: class, HTTP status and code.

    GlamBaseError                               500  INTERNAL_ERROR
    ├── DomainError                             400  DOMAIN_ERROR
    │   ├── ConflictError                       409  CONFLICT
    │   ├── ForbiddenError                      403  FORBIDDEN
    │   ├── NotFoundError                       404  NOT_FOUND
    │   ├── RateLimitedError                    429  RATE_LIMITED
    │   ├── UnauthorizedError                   401  UNAUTHORIZED
    │   └── ValidationError                     422  VALIDATION_ERROR
    ├── InfrastructureError                     503  INFRASTRUCTURE_ERROR
    │   ├── CircuitOpenError                    503  CIRCUIT_OPEN
    │   ├── DatabaseError                       503  DATABASE_ERROR
    │   ├── MessageBusError                     503  MESSAGE_BUS_ERROR
    │   ├── RedisError                          503  REDIS_ERROR
    │   ├── RequestTimeoutError                 504  TIMEOUT
    │   ├── S3Error                             503  S3_ERROR
    │   ├── ServiceUnavailableError             503  SERVICE_UNAVAILABLE
    │   └── UpstreamServiceError                503  UPSTREAM_SERVICE_ERROR
    └── InternalError                           500  INTERNAL_ERROR

`catalogue` lists them at run time, with those of every error catalogue that was imported: a
service's own, or the product's (`shared.platform.errors`), whose names are handed
on from here. What becomes of a message whose handler raises one says `outcome_of`.
"""

from typing import TYPE_CHECKING

from shared.errors.base import (
    ConflictError,
    DomainError,
    ForbiddenError,
    GlamBaseError,
    InfrastructureError,
    InternalError,
    NotFoundError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceUnavailableError,
    UnauthorizedError,
    ValidationError,
)
from shared.errors.extras import (
    MissingExtraError,
    missing_extra,
)
from shared.errors.foreign import (
    classify_http_error,
    is_retryable_error,
    with_error_mapping,
    wrap_external_error,
)
from shared.errors.infrastructure import (
    CircuitOpenError,
    DatabaseError,
    MessageBusError,
    RedisError,
    S3Error,
    UpstreamServiceError,
)
from shared.errors.listing import (
    CatalogueEntry,
    catalogue,
)
from shared.errors.outcome import (
    Outcome,
    outcome_of,
)
from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.platform.errors.analysis import (
        AnalysisInProgressError,
        AnalysisNotCancellableError,
        AnalysisNotFoundError,
        NoCurrentAnalysisError,
    )
    from shared.platform.errors.catalog import (
        ItemNotFoundError,
        ParentSyncNotFoundError,
        SyncInProgressError,
        SyncNotCancellableError,
        SyncNotFoundError,
        SyncNotResumableError,
    )
    from shared.platform.errors.notification import (
        EmailProviderError,
        InvalidRecipientError,
        NotificationNotFoundError,
        PreferencesNotFoundError,
        TemplateNotFoundError,
        TemplateRenderError,
        UnsubscribedError,
    )
    from shared.platform.errors.profile import (
        ProfileAlreadyExistsError,
        ProfileCreationFailedError,
        ProfileNotFoundError,
    )
    from shared.platform.errors.selfie import (
        ImageTooLargeError,
        ImageTooSmallError,
        InvalidImageFormatError,
        MultipleFacesDetectedError,
        NoFaceDetectedError,
        PoorImageQualityError,
        SelfieNotFoundError,
    )

__all__ = [
    "AnalysisInProgressError",
    "AnalysisNotCancellableError",
    "AnalysisNotFoundError",
    "CatalogueEntry",
    "CircuitOpenError",
    "ConflictError",
    "DatabaseError",
    "DomainError",
    "EmailProviderError",
    "ForbiddenError",
    "GlamBaseError",
    "ImageTooLargeError",
    "ImageTooSmallError",
    "InfrastructureError",
    "InternalError",
    "InvalidImageFormatError",
    "InvalidRecipientError",
    "ItemNotFoundError",
    "MessageBusError",
    "MissingExtraError",
    "MultipleFacesDetectedError",
    "NoCurrentAnalysisError",
    "NoFaceDetectedError",
    "NotFoundError",
    "NotificationNotFoundError",
    "Outcome",
    "ParentSyncNotFoundError",
    "PoorImageQualityError",
    "PreferencesNotFoundError",
    "ProfileAlreadyExistsError",
    "ProfileCreationFailedError",
    "ProfileNotFoundError",
    "RateLimitedError",
    "RedisError",
    "RequestTimeoutError",
    "S3Error",
    "SelfieNotFoundError",
    "ServiceUnavailableError",
    "SyncInProgressError",
    "SyncNotCancellableError",
    "SyncNotFoundError",
    "SyncNotResumableError",
    "TemplateNotFoundError",
    "TemplateRenderError",
    "UnauthorizedError",
    "UnsubscribedError",
    "UpstreamServiceError",
    "ValidationError",
    "catalogue",
    "classify_http_error",
    "is_retryable_error",
    "missing_extra",
    "outcome_of",
    "with_error_mapping",
    "wrap_external_error",
]

__getattr__, __dir__ = handed_on(__name__)
