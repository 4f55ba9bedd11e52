"""Every error of the chassis and of the platform's services: class, HTTP status and code.

    GlamBaseError                               500  INTERNAL_ERROR
    ├── DomainError                             400  DOMAIN_ERROR
    │   ├── ConflictError                       409  CONFLICT
    │   │   ├── AnalysisInProgressError         409  ANALYSIS_IN_PROGRESS
    │   │   ├── AnalysisNotCancellableError     409  ANALYSIS_NOT_CANCELLABLE
    │   │   ├── ProfileAlreadyExistsError       409  PROFILE_ALREADY_EXISTS
    │   │   ├── SyncInProgressError             409  SYNC_IN_PROGRESS
    │   │   ├── SyncNotCancellableError         409  SYNC_NOT_CANCELLABLE
    │   │   ├── SyncNotResumableError           409  SYNC_NOT_RESUMABLE
    │   │   └── UnsubscribedError               409  UNSUBSCRIBED
    │   ├── ForbiddenError                      403  FORBIDDEN
    │   ├── NotFoundError                       404  NOT_FOUND
    │   │   ├── AnalysisNotFoundError           404  ANALYSIS_NOT_FOUND
    │   │   ├── ItemNotFoundError               404  ITEM_NOT_FOUND
    │   │   ├── NoCurrentAnalysisError          404  NO_CURRENT_ANALYSIS
    │   │   ├── NotificationNotFoundError       404  NOTIFICATION_NOT_FOUND
    │   │   ├── ParentSyncNotFoundError         404  PARENT_SYNC_NOT_FOUND
    │   │   ├── PreferencesNotFoundError        404  PREFERENCES_NOT_FOUND
    │   │   ├── ProfileNotFoundError            404  PROFILE_NOT_FOUND
    │   │   ├── SelfieNotFoundError             404  SELFIE_NOT_FOUND
    │   │   ├── SyncNotFoundError               404  SYNC_NOT_FOUND
    │   │   └── TemplateNotFoundError           404  TEMPLATE_NOT_FOUND
    │   ├── ProfileCreationFailedError          422  PROFILE_CREATION_FAILED
    │   ├── RateLimitedError                    429  RATE_LIMITED
    │   ├── UnauthorizedError                   401  UNAUTHORIZED
    │   └── ValidationError                     422  VALIDATION_ERROR
    │       ├── ImageTooLargeError              422  IMAGE_TOO_LARGE
    │       ├── ImageTooSmallError              422  IMAGE_TOO_SMALL
    │       ├── InvalidImageFormatError         422  INVALID_IMAGE_FORMAT
    │       ├── InvalidRecipientError           422  INVALID_RECIPIENT
    │       ├── MultipleFacesDetectedError      422  MULTIPLE_FACES_DETECTED
    │       ├── NoFaceDetectedError             422  NO_FACE_DETECTED
    │       ├── PoorImageQualityError           422  POOR_IMAGE_QUALITY
    │       └── TemplateRenderError             422  TEMPLATE_RENDER_ERROR
    ├── InfrastructureError                     503  INFRASTRUCTURE_ERROR
    │   ├── CircuitOpenError                    503  CIRCUIT_OPEN
    │   ├── DatabaseError                       503  DATABASE_ERROR
    │   ├── EmailProviderError                  503  EMAIL_PROVIDER_ERROR
    │   ├── MessageBusError                     503  MESSAGE_BUS_ERROR
    │   ├── RedisError                          503  REDIS_ERROR
    │   ├── RequestTimeoutError                 504  TIMEOUT
    │   ├── S3Error                             503  S3_ERROR
    │   ├── ServiceUnavailableError             503  SERVICE_UNAVAILABLE
    │   └── UpstreamServiceError                503  UPSTREAM_SERVICE_ERROR
    └── InternalError                           500  INTERNAL_ERROR

`catalogue` lists them at run time, those that a service adds too. What becomes of a message whose
handler raises one says `outcome_of`.
"""

from shared.errors.analysis import (
    AnalysisInProgressError,
    AnalysisNotCancellableError,
    AnalysisNotFoundError,
    NoCurrentAnalysisError,
)
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
from shared.errors.catalog import (
    ItemNotFoundError,
    ParentSyncNotFoundError,
    SyncInProgressError,
    SyncNotCancellableError,
    SyncNotFoundError,
    SyncNotResumableError,
)
from shared.errors.extras import (
    MissingExtraError,
    missing_extra,
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
from shared.errors.notification import (
    EmailProviderError,
    InvalidRecipientError,
    NotificationNotFoundError,
    PreferencesNotFoundError,
    TemplateNotFoundError,
    TemplateRenderError,
    UnsubscribedError,
)
from shared.errors.outcome import (
    Outcome,
    outcome_of,
)
from shared.errors.profile import (
    ProfileAlreadyExistsError,
    ProfileCreationFailedError,
    ProfileNotFoundError,
)
from shared.errors.selfie import (
    ImageTooLargeError,
    ImageTooSmallError,
    InvalidImageFormatError,
    MultipleFacesDetectedError,
    NoFaceDetectedError,
    PoorImageQualityError,
    SelfieNotFoundError,
)
from shared.errors.utils import (
    classify_http_error,
    is_retryable_error,
    with_error_mapping,
    wrap_external_error,
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
