"""Typed settings from `config/shared.yml`, a service's own file, `.env` and the environment.

class CreditSettings(ServiceSettings):
    trial_credits: int = 100

settings = load_settings(CreditSettings, "credit-service")
"""

from typing import TYPE_CHECKING

from shared.config.errors import ConfigError, Mistake
from shared.config.load import Setting, explain, load_settings
from shared.config.place import find_root, inside_container
from shared.config.redaction import MASK, is_secret, redact, redact_text
from shared.config.settings import (
    ApiSettings,
    DatabaseSettings,
    DeliverySettings,
    Environment,
    HttpClientSettings,
    LoggingSettings,
    LogLevel,
    NatsSettings,
    RateLimitSettings,
    Section,
    ServiceAuthSettings,
    ServiceSettings,
    StreamSettings,
    TracingSettings,
    host_and_port,
)
from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.merged_config import (
        flatten_config,
        merged_config,
    )

__all__ = [
    "MASK",
    "ApiSettings",
    "ConfigError",
    "DatabaseSettings",
    "DeliverySettings",
    "Environment",
    "HttpClientSettings",
    "LogLevel",
    "LoggingSettings",
    "Mistake",
    "NatsSettings",
    "RateLimitSettings",
    "Section",
    "ServiceAuthSettings",
    "ServiceSettings",
    "Setting",
    "StreamSettings",
    "TracingSettings",
    "explain",
    "find_root",
    "flatten_config",
    "host_and_port",
    "inside_container",
    "is_secret",
    "load_settings",
    "merged_config",
    "redact",
    "redact_text",
]

__getattr__, __dir__ = handed_on(__name__)
