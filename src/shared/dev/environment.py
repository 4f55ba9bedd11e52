"""The environment variables that lead a service to servers started here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from shared.config import DatabaseSettings


def service_environment(
    service: str,
    *,
    database: DatabaseSettings,
    nats_url: str,
    port: int,
    log_file: Path | None = None,
) -> dict[str, str]:
    """Return the variables for the service called ``service`` (``credit-service``).

    Args:
        service: its name; the prefix of the variables follows from it (``CREDIT_``).
        database: where its PostgreSQL is.
        nats_url: where its NATS is.
        port: where it shall listen, on 127.0.0.1.
        log_file: where it shall keep its log as JSON lines, beside what it prints.
    """
    prefix = service.removesuffix("-service").replace("-", "_").upper()
    values = {
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "DATABASE__HOST": database.host,
        "DATABASE__PORT": str(database.port),
        "DATABASE__NAME": database.name,
        "DATABASE__USER": database.user,
        "NATS__SERVERS": nats_url,
    }
    if database.password is not None:
        values["DATABASE__PASSWORD"] = database.password.get_secret_value()
    if database.system_user is not None:
        values["DATABASE__SYSTEM_USER"] = database.system_user
    if log_file is not None:
        values["LOGGING__FILE"] = str(log_file.resolve())
    return {f"{prefix}_{key}": value for key, value in values.items()}
