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
database_idle_transactions_total = Counter(
    "database_idle_transactions_total",
    "Transactions held open while their task waited for something else, beyond the threshold.",
    ["service"],
)
database_transaction_retries_total = Counter(
    "database_transaction_retries_total",
    "Transactions tried again after a serialization failure or a deadlock.",
    ["service"],
)
database_replica_lag_seconds = Gauge(
    "database_replica_lag_seconds",
    "How far a standby is behind the primary; infinite when it does not answer.",
    ["service", "replica"],
    multiprocess_mode="livemax",
)
database_replica_reads_total = Counter(
    "database_replica_reads_total",
    "Read-only transactions where there are standbys, by where they went: replica or primary.",
    ["service", "target"],
)
