"""Messages sent and received. `subscriber` is the durable consumer's name."""

from prometheus_client import Counter, Gauge

from shared.metrics.histogram import BulkHistogram

messages_published_total = Counter(
    "messages_published_total",
    "Messages acknowledged by a stream.",
    ["service", "stream", "subject"],
)
messages_handled_total = Counter(
    "messages_handled_total",
    "Deliveries that were handled, by outcome: ack, retry or dead_letter.",
    ["service", "subscriber", "outcome"],
)
messages_retried_total = Counter(
    "messages_retried_total",
    "Deliveries handed back to be delivered again.",
    ["service", "subscriber"],
)
messages_dead_lettered_total = Counter(
    "messages_dead_lettered_total",
    "Messages moved to the dead-letter stream.",
    ["service", "subscriber"],
)
dead_letters = Gauge(
    "dead_letters",
    "Messages of the subscriber that lie in the dead-letter stream now.",
    ["service", "subscriber"],
    multiprocess_mode="livemax",
)
message_handling_seconds = BulkHistogram(
    "message_handling_seconds",
    "Time a handler took for one delivery.",
    ["service", "subscriber"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
message_lag_seconds = BulkHistogram(
    "message_lag_seconds",
    "Time from a message's publication to the start of its first handling.",
    ["service", "subscriber"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600),
)
messages_pending = Gauge(
    "messages_pending",
    "Messages of the stream that wait for the subscriber's first delivery.",
    ["service", "subscriber"],
    multiprocess_mode="livemax",
)
messages_in_progress = Gauge(
    "messages_in_progress",
    "Messages being handled now.",
    ["service", "subscriber"],
    multiprocess_mode="livesum",
)
subscriber_circuit_open = Gauge(
    "subscriber_circuit_open",
    "1 while an outage keeps the subscriber from reading, else 0.",
    ["service", "subscriber"],
    multiprocess_mode="livemax",
)
subscriber_blocked_seconds_total = Counter(
    "subscriber_blocked_seconds_total",
    "Time for which the subscriber's handlers blocked the event loop, beyond half of `ack_wait`.",
    ["service", "subscriber"],
)
subscriber_paused = Gauge(
    "subscriber_paused",
    "1 while the subscriber is paused, else 0.",
    ["service", "subscriber"],
    multiprocess_mode="livemax",
)
