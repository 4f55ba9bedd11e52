"""Prometheus metrics of the chassis, in the default registry beside a service's own."""

from typing import TYPE_CHECKING

from shared._lazy import lazy_names
from shared.metrics.build import build_info, record_build
from shared.metrics.database import (
    database_idle_transactions_total,
    database_pool_connections,
    database_pool_limit,
    database_pool_wait_seconds,
    database_replica_lag_seconds,
    database_replica_reads_total,
    database_slow_queries_total,
    database_transaction_retries_total,
)
from shared.metrics.exemplar import exemplar
from shared.metrics.exposition import render
from shared.metrics.http import (
    HttpMetrics,
    default_http_metrics,
    http_rate_limits_skipped_total,
    http_request_duration_seconds,
    http_requests_in_progress,
    http_requests_limited_total,
    http_requests_total,
)
from shared.metrics.messaging import (
    dead_letters,
    message_handling_seconds,
    message_lag_seconds,
    messages_dead_lettered_total,
    messages_handled_total,
    messages_in_progress,
    messages_pending,
    messages_published_total,
    messages_retried_total,
    subscriber_blocked_seconds_total,
    subscriber_circuit_open,
    subscriber_paused,
)
from shared.metrics.outbox import (
    outbox_backlog,
    outbox_oldest_age_seconds,
    outbox_partitions,
    outbox_relay_seconds,
    outbox_relayed_total,
)

if TYPE_CHECKING:
    from shared.metrics.middleware import PrometheusMiddleware, metrics_endpoint

__all__ = [
    "HttpMetrics",
    "PrometheusMiddleware",
    "build_info",
    "database_idle_transactions_total",
    "database_pool_connections",
    "database_pool_limit",
    "database_pool_wait_seconds",
    "database_replica_lag_seconds",
    "database_replica_reads_total",
    "database_slow_queries_total",
    "database_transaction_retries_total",
    "dead_letters",
    "default_http_metrics",
    "exemplar",
    "http_rate_limits_skipped_total",
    "http_request_duration_seconds",
    "http_requests_in_progress",
    "http_requests_limited_total",
    "http_requests_total",
    "message_handling_seconds",
    "message_lag_seconds",
    "messages_dead_lettered_total",
    "messages_handled_total",
    "messages_in_progress",
    "messages_pending",
    "messages_published_total",
    "messages_retried_total",
    "metrics_endpoint",
    "outbox_backlog",
    "outbox_oldest_age_seconds",
    "outbox_partitions",
    "outbox_relay_seconds",
    "outbox_relayed_total",
    "record_build",
    "render",
    "subscriber_blocked_seconds_total",
    "subscriber_circuit_open",
    "subscriber_paused",
]


# Metrics alone need no Starlette.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PrometheusMiddleware": "shared.metrics.middleware",
        "metrics_endpoint": "shared.metrics.middleware",
    },
)
