"""The typed settings of a service, and the sections every service has."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from shared.config.redaction import redact

Environment = Literal["dev", "staging", "prod"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]

_LAST_PORT = 65535


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class Section(BaseModel):
    """A part of the settings: frozen, without unknown keys, silent about its secrets.

    Subclass it for a section of a service's own.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=True,
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Name the fields for `repr` and `str`, secrets hidden by type, name and look."""
        return ((name, redact(name or "", value)) for name, value in super().__repr_args__())


class ApiSettings(Section):
    """The HTTP edge."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    """Where to listen; 0 takes a free one."""
    external_port: int | None = Field(default=None, ge=1, le=65535)
    """The port in place of `port` when the process runs outside a container."""
    prefix: str = "/api/v1"
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose `X-Forwarded-For` is believed."""
    body_limit_bytes: int = Field(default=1_048_576, ge=0)
    request_timeout_seconds: float | None = Field(default=None, gt=0)
    metrics_path: str = "/metrics"
    info: bool | None = None
    """Whether `GET <prefix>/info` is served; unless set, in dev, and in staging to operators."""
    log_level: bool | None = None
    """Whether `<prefix>/log-level` is served; unless set, in dev, and in staging to operators."""
    subscribers: bool | None = None
    """Whether `<prefix>/subscribers` is served, which pauses and resumes them; unless set, in dev,
    and in staging to operators."""
    dead_letters: bool | None = None
    """Whether `<prefix>/dead-letters` is served, which replays and discards them; unless set, in
    dev, and in staging to operators."""
    operators_token: SecretStr | None = Field(default=None, min_length=16)
    """What operators send to these as `Authorization: Bearer <token>`; at least 16 characters.
    Outside of dev none of them is served without it or `operators_services`."""
    operators_services: tuple[str, ...] = ()
    """The services whose service tokens open them."""

    @property
    def knows_operators(self) -> bool:
        """Whether anybody could show to be an operator."""
        return self.operators_token is not None or bool(self.operators_services)


def host_and_port(address: str) -> tuple[str, int | None]:
    """Split `host`, `host:port` or `[IPv6 address]:port`.

    Raises:
        ValueError: it is none of these.
    """
    found = re.fullmatch(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::(\d{1,5}))?", address.strip())
    if found is None or (found[2] is not None and not 0 < int(found[2]) <= _LAST_PORT):
        raise ValueError(f"{address!r} is not a host:port, such as db:5432 or [2001:db8::1]:5432")
    return found[1].strip("[]"), None if found[2] is None else int(found[2])


def _host(address: str) -> str:
    host_and_port(address)
    return address.strip()


class DatabaseSettings(Section):
    """The PostgreSQL database. The variables `<SERVICE>_DB_*` set the same keys."""

    enabled: bool = True
    host: str = "127.0.0.1"
    """A host name, an address, or the folder of a Unix socket."""
    port: int = Field(default=5432, ge=1, le=65535)
    external_port: int | None = Field(default=None, ge=1, le=65535)
    """The port in place of `port` when the process runs outside a container."""
    name: str = "glam"
    user: str = "postgres"
    password: SecretStr | None = None
    password_file: Path | None = None
    """In place of `password`: read again for each new connection, so that it may change."""
    system_user: str | None = None
    """A role with BYPASSRLS, for work across tenants; without one there is none."""
    system_password: SecretStr | None = None
    system_password_file: Path | None = None
    schema_name: str | None = None
    """The schema of the service's tables; without one the service's name decides."""
    pool_size: int = Field(default=5, ge=1)
    max_overflow: int = Field(default=10, ge=0)
    pool_pre_ping: bool = True
    pool_recycle_seconds: int = Field(default=3600, ge=-1)
    echo: bool = False
    async_driver: Literal["asyncpg"] = "asyncpg"
    statement_timeout_seconds: float = Field(default=30.0, ge=0)
    """0 waits for ever, as in PostgreSQL; the same for the three below."""
    lock_timeout_seconds: float = Field(default=10.0, ge=0)
    idle_in_transaction_timeout_seconds: float = Field(default=60.0, ge=0)
    connect_timeout_seconds: float = Field(default=10.0, gt=0)
    cursor_secret: Annotated[SecretStr, Field(min_length=16)] | None = None
    """Signs the cursors of pages; the same for all replicas. A new one ends the old cursors."""
    transaction_attempts: int = Field(default=5, ge=1)
    """How often a message's transaction is tried when PostgreSQL ends it for the sake of another
    (serialization failure, deadlock), before that counts as a failed attempt."""
    tls: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """As libpq's `sslmode`: only `verify-full` knows whom it speaks to."""
    tls_ca_file: Path | None = None
    """The authority to trust in `verify-ca` and `verify-full`; the system's own unless given."""
    tls_cert_file: Path | None = None
    """The certificate to log in with."""
    tls_key_file: Path | None = None
    replicas: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    """Standbys that read-only work goes to, each `host` or `host:port`; the rest is the same."""
    replica_max_lag_seconds: float = Field(default=10.0, gt=0)
    """A standby further behind than this is not read from."""
    pgbouncer: bool = False
    """Whether a pooler in transaction mode stands between: nothing is then left in a session."""
    slow_query_seconds: float = Field(default=1.0, ge=0)
    """A statement that takes so long is logged, without its values."""
    slow_query_plan: bool = False
    """Log the plan of a slow SELECT too."""
    idle_warning_seconds: float = Field(default=5.0, ge=0)
    """A transaction held so long by a task that waits for something else is logged; 0: never."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name in ("password", "system_password"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                raise ValueError(f"{name} and {name}_file exclude one another")
        if self.tls_ca_file is not None and not self.tls.startswith("verify-"):
            raise ValueError("tls_ca_file needs tls verify-ca or verify-full: nothing else checks")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together: set both, or neither")
        if self.tls_cert_file is not None and self.tls in {"disable", "prefer"}:
            raise ValueError("tls_cert_file needs tls require, verify-ca or verify-full")
        return self


class StreamSettings(Section):
    """One stream; what is not given is as the service has it, see `shared.events.StreamDefinition`.

    A stream with `subjects` is one that the service does not declare.
    """

    subjects: tuple[str, ...] = Field(default=(), min_length=1)
    retention: Literal["limits", "interest", "workqueue"] = "limits"
    max_age_seconds: float | None = Field(default=None, gt=0)
    max_messages: int | None = Field(default=None, ge=1)
    max_bytes: int | None = Field(default=None, ge=1)
    max_message_bytes: int | None = Field(default=None, ge=1)
    max_messages_per_subject: int | None = Field(default=None, ge=1)
    replicas: int | None = Field(default=None, ge=1, le=5)
    storage: Literal["file", "memory"] = "file"
    dedupe_window_seconds: float | None = Field(default=None, gt=0)
    external: bool = False


class NatsSettings(Section):
    """The NATS JetStream servers and how to log in."""

    servers: tuple[str, ...] = Field(default=("nats://127.0.0.1:4222",), min_length=1)
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    creds_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream: 1 on one machine, 3 in a cluster."""
    dedupe_window_seconds: float = Field(default=120.0, gt=0)
    streams: Mapping[str, StreamSettings] = {}
    """Streams by name: limits and copies of those that the service has, or streams of its own."""
    claim_check_bytes: int | None = Field(default=None, ge=1)
    """A larger body travels by way of the object store; by default none does."""
    connect_timeout_seconds: float = Field(default=5.0, gt=0)


class DeliverySettings(Section):
    """The outbox, the inbox and the idempotency keys."""

    poll_seconds: float = Field(default=1.0, gt=0)
    """How long the relay waits when nothing wakes it."""
    batch: int = Field(default=500, ge=1)
    notify: bool = True
    """Wake the relay by PostgreSQL's NOTIFY; polling goes on either way."""
    lease_seconds: float = Field(default=15.0, ge=0.5)
    """How long a part of the outbox stays with a replica that died or froze."""
    atomic: Literal["auto", "off"] = "auto"
    """Publish in atomic batches where server (2.12 or newer) and stream take them."""
    spans: bool = True
    """Record a span, and so a line of the log, for each message that is published."""
    outbox_retention_hours: float = Field(default=168.0, gt=0)
    inbox_retention_hours: float = Field(default=744.0, gt=0)
    """How long a handled message is known: by default a day longer than a dead letter is kept."""
    idempotency_retention_hours: float = Field(default=24.0, gt=0)
    """How long an answer is repeated to a caller that sends the same `Idempotency-Key`."""


class HttpClientSettings(Section):
    """Calls to other services over HTTP."""

    services: Mapping[str, str] = {}
    """The address of each called service with its prefix, such as `http://credit:8000/api/v1`."""
    connect_timeout_seconds: float = Field(default=2.0, gt=0)
    read_timeout_seconds: float = Field(default=10.0, gt=0)
    """How long the service may send nothing."""
    total_timeout_seconds: float = Field(default=15.0, gt=0)
    """How long a call may take, with all its attempts and the waits between them."""
    attempts: int = Field(default=3, ge=1)
    """How often a call is tried at most; see `shared.http` for which may be tried again."""
    retry_first_delay_seconds: float = Field(default=0.1, ge=0)
    retry_max_delay_seconds: float = Field(default=2.0, ge=0)
    circuit_failures: int = Field(default=5, ge=1)
    """So many failures in a row open the circuit."""
    circuit_open_seconds: float = Field(default=10.0, gt=0)
    max_connections: int = Field(default=100, ge=1)
    ca_file: Path | None = None
    """The authority that signed the services' certificates; the system's own unless given."""


class ServiceAuthSettings(Section):
    """How services prove to one another who they are: by tokens signed with a shared secret.

    To change a secret, add the new one to `secrets` everywhere, then name it in `sign_with`
    everywhere, then take the old one away.
    """

    secrets: Mapping[str, Annotated[SecretStr, Field(min_length=32)]] = {}
    """Secrets by key id, all accepted; at least 32 characters each (RFC 7518, section 3.2)."""
    sign_with: str | None = None
    """The key id of the secret to sign with; may be left out where there is one secret."""
    token_seconds: float = Field(default=60.0, ge=1, le=3600)
    leeway_seconds: float = Field(default=5.0, ge=0, le=60)
    """How far the clocks of two machines may differ."""

    @property
    def signing_key_id(self) -> str | None:
        """The key id that is signed under; ``None`` without secrets."""
        return self.sign_with or next(iter(self.secrets), None)

    @model_validator(mode="after")
    def _sign_with_one_of_the_secrets(self) -> Self:
        if self.sign_with is None and len(self.secrets) > 1:
            raise ValueError("sign_with is missing: of several secrets, name one to sign with")
        if self.sign_with is not None and self.sign_with not in self.secrets:
            raise ValueError(f"sign_with: {self.sign_with!r} is not the key id of a secret")
        return self


def check_limit(text: str) -> str:
    """Return a limit such as `100/minute` or `1000 per 2 hours` as it came.

    Raises:
        ValueError: it is not a limit, or allows nothing.
    """
    from limits import parse_many  # noqa: PLC0415 - who sets no limit does not load it

    try:
        limits = parse_many(text)
    except ValueError:
        limits = []
    if len(limits) != 1 or limits[0].amount < 1:
        raise ValueError(
            f'{text!r} is not a rate limit: a limit reads "100/minute" or "1000 per 2 hours"'
        )
    return text


def _redis(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("not a Redis URL: it begins with redis://, rediss:// or unix://")
    return url


class RateLimitSettings(Section):
    """How often callers may call. Without limits nothing is counted."""

    client: tuple[Annotated[str, AfterValidator(check_limit)], ...] = ()
    """For each client, such as `100/minute, 1000 per 2 hours`: all of them hold. A client is the
    authenticated user or else the caller's address."""
    tenant: tuple[Annotated[str, AfterValidator(check_limit)], ...] = ()
    """For each tenant, over all of its callers."""
    exempt_paths: tuple[str, ...] = ("/health", "/health/live", "/health/ready", "/health/startup")
    """Free of these limits, as they stand and under the API's prefix; the metrics' path is too."""
    storage_url: Annotated[SecretStr, AfterValidator(_redis)] | None = None
    """The Redis in which all replicas count together; needs `glam-shared[redis]`. Without one each
    process counts for itself."""
    storage_timeout_seconds: float = Field(default=0.5, gt=0)
    """How long Redis may take; a request then passes uncounted."""


class LoggingSettings(Section):
    """What is logged, how, and where."""

    level: Annotated[LogLevel, BeforeValidator(_upper)] = "INFO"
    format: Literal["auto", "json", "console"] = "auto"
    """`auto` is `console` in dev and `json` elsewhere."""
    file: Path | None = None
    """A file of JSON lines beside standard output, rotated at 10 MB, five kept."""
    sample_keep: int = Field(default=1000, ge=0)
    """Of a line repeated within `sample_seconds` so many are written, and then how many more there
    were; 0 writes them all. Errors are always written, and spans unless `sample_spans`."""
    sample_seconds: float = Field(default=10.0, gt=0)
    sample_spans: bool = False
    redact_emails: bool = False
    """Hide e-mail addresses in messages, fields and exceptions."""


class TracingSettings(Section):
    """Where spans go beside the log; an endpoint needs `glam-shared[otel]`."""

    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/]")
    """The OTLP/HTTP collector, such as `http://collector:4318`; `OTEL_EXPORTER_OTLP_ENDPOINT`."""
    headers: Mapping[str, SecretStr] = {}
    """Sent with every request, such as `authorization`; beside `OTEL_EXPORTER_OTLP_HEADERS`."""
    timeout_seconds: float = Field(default=10.0, gt=0)
    """How long one batch may take, with its retries."""
    flush_seconds: float = Field(default=5.0, ge=0)
    """How long the spans that wait may take to be sent when the service stops."""
    database: bool = False
    """Log a span for each SQL statement too. With an endpoint they are exported in any case."""


class ServiceSettings(Section):
    """The settings every service has. Subclass it with the service's own fields and sections.

    >>> class TillSettings(ServiceSettings):
    ...     currency: str = Field(default="EUR", pattern="[A-Z]{3}")
    >>> settings = TillSettings(currency="USD")
    >>> settings.currency, settings.drain_seconds
    ('USD', 20.0)
    """

    environment: Environment = "dev"
    debug: bool = False
    api: ApiSettings = ApiSettings()
    database: DatabaseSettings = DatabaseSettings()
    nats: NatsSettings = NatsSettings()
    delivery: DeliverySettings = DeliverySettings()
    http_client: HttpClientSettings = HttpClientSettings()
    service_auth: ServiceAuthSettings = ServiceAuthSettings()
    rate_limiting: RateLimitSettings = RateLimitSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()
    drain_seconds: float = Field(default=20.0, ge=0)
    """How long running work may take to finish once the service is told to stop."""

    @model_validator(mode="after")
    def _operations_are_guarded(self) -> Self:
        wanted = [
            name
            for name in ("info", "log_level", "subscribers", "dead_letters")
            if getattr(self.api, name)
        ]
        if wanted and self.environment != "dev" and not self.api.knows_operators:
            raise PydanticCustomError(
                "not_guarded",
                "in {environment} it needs api.operators_token or api.operators_services, "
                "since it must not be open to everybody",
                {"setting": f"api.{wanted[0]}", "environment": self.environment},
            )
        return self
