"""Requests sent to other services. `upstream` is the called one."""

from prometheus_client import Counter, Gauge, Histogram

http_client_requests_total = Counter(
    "http_client_requests_total",
    "Requests sent, each attempt by itself, by status; `none` when no answer came.",
    ["service", "upstream", "method", "status"],
)
http_client_request_duration_seconds = Histogram(
    "http_client_request_duration_seconds",
    "Time from sending a request to the last byte of its answer, or to its failure.",
    ["service", "upstream", "method"],
)
http_client_circuit_open = Gauge(
    "http_client_circuit_open",
    "1 from when a circuit opens until a call has succeeded again.",
    ["service", "upstream"],
    multiprocess_mode="livemax",
)
