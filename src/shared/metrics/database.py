"""The connection pool and slow statements."""

from prometheus_client import Counter, Gauge, Histogram

database_pool_connections = Gauge(
    "database_pool_connections",
    "Open connections of the pool, by state: idle or in_use.",
    ["service", "state"],
    multiprocess_mode="livesum",
)
database_pool_limit = Gauge(
    "database_pool_limit",
    "Connections the pool may open, overflow included.",
    ["service"],
    multiprocess_mode="livesum",
)
database_pool_wait_seconds = Histogram(
    "database_pool_wait_seconds",
    "Time to get a connection from the pool.",
    ["service"],
    buckets=(0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30),
)
database_slow_queries_total = Counter(
    "database_slow_queries_total",
    "Statements that took longer than the slow-query threshold.",
    ["service"],
)
