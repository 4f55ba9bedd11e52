"""Database settings as the first design reads them: ``<PREFIX>DB_HOST`` and so on."""

import os
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL

from shared.config import inside_container

__all__ = ["DatabaseConfig", "create_database_config"]


class DatabaseConfig(BaseSettings):
    """Where the database is, from the environment and ``.env``. Keys of others are ignored."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", case_sensitive=False
    )

    DB_HOST: str
    DB_PORT: int = 5432
    DB_PORT_EXTERNAL: int | None = None
    DB_NAME: str
    DB_USER: str
    DB_PASSWORD: str
    DB_ENABLED: bool = True
    DB_POOL_SIZE: int = 5
    DB_MAX_OVERFLOW: int = 10
    DB_POOL_PRE_PING: bool = True
    DB_POOL_RECYCLE: int = 3600
    DB_ASYNC_DRIVER: str = "asyncpg"
    DB_ECHO: bool = False

    def __repr_args__(self) -> Any:
        """Show everything but the password."""
        for name, value in super().__repr_args__():
            yield name, SecretStr(value) if name == "DB_PASSWORD" else value

    @property
    def effective_port(self) -> int:
        """``DB_PORT`` inside a container; outside, ``DB_PORT_EXTERNAL`` when it is set."""
        if self.DB_PORT_EXTERNAL is not None and not inside_container(os.environ):
            return self.DB_PORT_EXTERNAL
        return self.DB_PORT

    @property
    def database_url(self) -> str:
        """The URL with the password, each part quoted. Not for logs."""
        return URL.create(
            f"postgresql+{self.DB_ASYNC_DRIVER}",
            username=self.DB_USER,
            password=self.DB_PASSWORD,
            host=self.DB_HOST,
            port=self.effective_port,
            database=self.DB_NAME,
        ).render_as_string(hide_password=False)

    def engine_kwargs(self) -> dict[str, Any]:
        """Return the keywords for ``create_async_engine``."""
        return {
            "echo": self.DB_ECHO,
            "pool_size": self.DB_POOL_SIZE,
            "max_overflow": self.DB_MAX_OVERFLOW,
            "pool_pre_ping": self.DB_POOL_PRE_PING,
            "pool_recycle": self.DB_POOL_RECYCLE,
        }


def create_database_config(prefix: str) -> DatabaseConfig:
    """Read the settings whose names start with ``prefix``, e.g. ``CREDIT_``.

    Raises:
        pydantic.ValidationError: one is missing or malformed.
    """
    return DatabaseConfig(_env_prefix=prefix)
