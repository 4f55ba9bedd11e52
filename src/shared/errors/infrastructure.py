"""Failures of the machines a service leans on."""

from __future__ import annotations

from typing import Any

from shared.errors.base import InfrastructureError


class DatabaseError(InfrastructureError):
    """The database failed; ``error_code`` is its SQLSTATE."""

    code = "DATABASE_ERROR"
    operation: str | None = None
    table: str | None = None
    error_code: str | None = None


class RedisError(InfrastructureError):
    """The cache failed."""

    code = "REDIS_ERROR"
    operation: str | None = None
    key: str | None = None


class S3Error(InfrastructureError):
    """The object store failed."""

    code = "S3_ERROR"
    operation: str | None = None
    bucket: str | None = None
    key: str | None = None
    error_code: str | None = None


class UpstreamServiceError(InfrastructureError):
    """Another service answered with an error of its own."""

    code = "UPSTREAM_SERVICE_ERROR"
    upstream_service: str | None = None
    upstream_status: int | None = None
    upstream_error: str | None = None
    endpoint: str | None = None


class CircuitOpenError(InfrastructureError):
    """The call was not made, since the last ones failed; trying again at once cannot help."""

    code = "CIRCUIT_OPEN"
    status = 503
    retryable = False
    service_name: str | None = None
    failure_count: int | None = None
    open_until: str | None = None

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message, **{**details, "retryable": False})


class MessageBusError(InfrastructureError):
    """The message bus failed."""

    code = "MESSAGE_BUS_ERROR"
    operation: str | None = None
    stream: str | None = None
    subject: str | None = None
