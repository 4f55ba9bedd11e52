"""Logs: one line per record, with the ids of the current work and without its secrets.

configure_logging(settings.logging, service="credit-service", environment=settings.environment)
logger = create_logger("credit-service")
logger.info("debited %s", amount, merchant_id=merchant_id)
"""

from shared.logging.configure import configure_logging
from shared.logging.formatters import ConsoleFormatter, JsonFormatter
from shared.logging.levels import LoggerLevel, log_levels, set_log_level
from shared.logging.logger import ServiceLogger, create_logger
from shared.logging.request_context import request_context

__all__ = [
    "ConsoleFormatter",
    "JsonFormatter",
    "LoggerLevel",
    "ServiceLogger",
    "configure_logging",
    "create_logger",
    "log_levels",
    "request_context",
    "set_log_level",
]
