"""Messages between the database and the stream."""

from prometheus_client import Counter, Gauge, Histogram

outbox_backlog = Gauge(
    "outbox_backlog",
    "Committed messages that are not yet published.",
    ["service"],
    multiprocess_mode="livemax",
)
outbox_oldest_age_seconds = Gauge(
    "outbox_oldest_age_seconds",
    "Age of the oldest message that is due and not yet published; 0 when there is none.",
    ["service"],
    multiprocess_mode="livemax",
)
outbox_relayed_total = Counter(
    "outbox_relayed_total",
    "Messages taken from the outbox and acknowledged by their stream.",
    ["service"],
)
outbox_relay_seconds = Histogram(
    "outbox_relay_seconds",
    "Time to read, publish and mark one batch of the outbox.",
    ["service"],
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
outbox_partitions = Gauge(
    "outbox_partitions",
    "Partitions of the outbox that this replica's relay has leased.",
    ["service"],
    multiprocess_mode="livesum",
)
