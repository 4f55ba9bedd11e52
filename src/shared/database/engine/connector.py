"""Opens connections to one PostgreSQL server, as one role."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from typing import TYPE_CHECKING, Literal

import asyncpg
from sqlalchemy import URL

from shared.database.engine.first_statement import BatchingConnection
from shared.database.engine.translation import translate_errors
from shared.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from typing import TypeAlias

    from pydantic import SecretStr

    from shared.config import DatabaseSettings

    PasswordProvider: TypeAlias = Callable[[], str | Awaitable[str]]


_WRONG_PASSWORD = frozenset({"28P01", "28000"})  # PostgreSQL manual, appendix A
_ROTATION_SECONDS = 0.5
_STATEMENT_CACHE = 100  # asyncpg's own default


def password_from(fixed: SecretStr | None, file: Path | None) -> PasswordProvider | str | None:
    """Return the password, or what reads it from the file each time it is asked."""
    if file is not None:
        path = file
        # Editors and orchestrators end the file with a line break, which no password does.
        return lambda: asyncio.to_thread(lambda: path.read_text(encoding="utf-8").rstrip("\r\n"))
    return fixed.get_secret_value() if fixed is not None else None


class Connector:
    """Opens connections to one server, as one role.

    A password that is provided is asked for again with each connection, so it may change while
    the service runs. Where PostgreSQL refuses it, the change may be half done: it is asked for
    once more after half a second.

    Args:
        settings: timeouts and TLS.
        host: of the server.
        port: of the server.
        user: who we are there.
        password: the password, or a function (async or not) that returns it.
        application_name: shown in ``pg_stat_activity`` and PostgreSQL's log.
        session_settings: what each session starts with. A pooler in transaction mode has no
            sessions; there each transaction is told (`engine.transactions`).
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        host: str,
        port: int,
        user: str,
        password: PasswordProvider | str | None,
        application_name: str,
        session_settings: Mapping[str, str],
    ) -> None:
        self.host = host
        self.port = port
        self.user = user
        self._settings = settings
        self._password = password
        self._server_settings = {"application_name": application_name}
        if not settings.pgbouncer:
            self._server_settings |= session_settings
        self._tls: ssl.SSLContext | Literal["prefer", False] | None = None

    @property
    def url(self) -> URL:
        """The address, without the password."""
        return URL.create(
            "postgresql+asyncpg",
            username=self.user,
            host=self.host,
            port=self.port,
            database=self._settings.name,
        )

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """Open a connection; the caller closes it.

        Raises:
            DatabaseError: retryable when the server is away, or a provided password is refused;
                otherwise (wrong password, no such database, a certificate that is not trusted)
                not.
        """
        try:
            try:
                return await self._connect()
            except asyncpg.PostgresError as error:
                if not callable(self._password) or error.sqlstate not in _WRONG_PASSWORD:
                    raise
            await asyncio.sleep(_ROTATION_SECONDS)
            return await self._connect()
        except (OSError, TimeoutError) as error:  # among them: no such password file, TLS
            raise DatabaseError(
                f"cannot reach PostgreSQL at {self.host}:{self.port}: "
                f"{error or type(error).__name__}",
                operation="connect",
                retryable=not isinstance(error, ssl.SSLCertVerificationError),
            ) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            state: str | None = getattr(error, "sqlstate", None)
            if callable(self._password) and state in _WRONG_PASSWORD:
                raise DatabaseError(
                    f"PostgreSQL refuses the password of {self.user}; it was asked for twice",
                    operation="connect",
                    error_code=state,
                    retryable=True,  # the new one may not have come through yet
                ) from error
            with translate_errors("connect"):
                raise
            raise  # never reached; the gate has raised its own

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        settings = self._settings
        if self._tls is None:
            self._tls = await asyncio.to_thread(_tls_of, settings)  # it reads files
        return await asyncpg.connect(
            host=self.host,
            port=self.port,
            database=settings.name,
            user=self.user,
            password=await self._ask_password(),
            timeout=settings.connect_timeout_seconds,
            ssl=self._tls,
            server_settings=self._server_settings,
            statement_cache_size=0 if settings.pgbouncer else _STATEMENT_CACHE,
            connection_class=BatchingConnection,
        )

    async def _ask_password(self) -> str | None:
        if not callable(self._password):
            return self._password
        answer = self._password()
        return await answer if inspect.isawaitable(answer) else answer


def _tls_of(settings: DatabaseSettings) -> ssl.SSLContext | Literal["prefer", False]:
    """What asyncpg is told; see libpq's table of ``sslmode`` (PostgreSQL manual, 32.19.1)."""
    if settings.tls == "disable":
        return False
    if settings.tls == "prefer":
        return "prefer"
    ca_file = settings.tls_ca_file
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    if settings.tls != "verify-full":
        context.check_hostname = False
    if settings.tls == "require":
        context.verify_mode = ssl.CERT_NONE
    if settings.tls_cert_file is not None:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    return context
