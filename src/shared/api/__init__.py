"""The HTTP edge of a service.

app = FastAPI()
app.include_router(create_health_router("credit-service"), prefix="/api/v1")
install_exception_handlers(app)
install_edge(app, settings.api, service="credit-service")
"""

from typing import TYPE_CHECKING

from shared.api.correlation import (
    add_correlation_header,
    add_correlation_to_event,
    extract_correlation_from_event,
    get_correlation_context,
    get_correlation_id,
    outgoing_headers,
    set_correlation_context,
)
from shared.api.dependencies import (
    ClientIpDep,
    CorrelationIdDep,
    PaginationDep,
    PaginationParams,
    RequestContext,
    RequestContextDep,
    RequestIdDep,
)
from shared.api.edge import Edge, install_edge
from shared.api.exception_handlers import install_exception_handlers
from shared.api.health import Probe, create_health_router
from shared.api.models import (
    ApiResponse,
    ErrorDetail,
    ErrorResponse,
    Links,
    Meta,
    Pagination,
    T,
)
from shared.api.openapi import error_responses, raises
from shared.api.rate_limits.rate_limits import RateLimit, install_rate_limits, limit_tenant
from shared.api.responses import (
    create_response,
    error_response,
    paginated_response,
    success_response,
)
from shared.api.routes.info import create_info_router
from shared.api.routes.log_level import create_log_level_router
from shared.api.routes.operations import create_operations_router, only_operators
from shared.api.service_identity import install_service_identity, only_services
from shared.http import Caller
from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.api.middleware import (
        APIMiddleware,
        setup_middleware,
    )
    from shared.legacy.api.tracing import (
        TracingMiddleware,
        get_trace_context,
        set_trace_context,
    )

__all__ = [
    "APIMiddleware",
    "ApiResponse",
    "Caller",
    "ClientIpDep",
    "CorrelationIdDep",
    "Edge",
    "ErrorDetail",
    "ErrorResponse",
    "Links",
    "Meta",
    "Pagination",
    "PaginationDep",
    "PaginationParams",
    "Probe",
    "RateLimit",
    "RequestContext",
    "RequestContextDep",
    "RequestIdDep",
    "T",
    "TracingMiddleware",
    "add_correlation_header",
    "add_correlation_to_event",
    "create_health_router",
    "create_info_router",
    "create_log_level_router",
    "create_operations_router",
    "create_response",
    "error_response",
    "error_responses",
    "extract_correlation_from_event",
    "get_correlation_context",
    "get_correlation_id",
    "get_trace_context",
    "install_edge",
    "install_exception_handlers",
    "install_rate_limits",
    "install_service_identity",
    "limit_tenant",
    "only_operators",
    "only_services",
    "outgoing_headers",
    "paginated_response",
    "raises",
    "set_correlation_context",
    "set_trace_context",
    "setup_middleware",
    "success_response",
]

__getattr__, __dir__ = handed_on(__name__)
