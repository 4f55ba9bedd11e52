"""A standby that streams from a PostgreSQL server."""

from __future__ import annotations

import asyncio

from shared.dev import PostgresServer
from shared.dev.postgres_server import _binaries


class StandbyServer(PostgresServer):
    """A copy of `primary`, which goes on replaying what happens there."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__(name="standby")
        self.primary = primary

    async def _prepare(self) -> None:
        user = self._user()
        self.data_dir.chmod(0o711)
        if (self._cluster / "PG_VERSION").exists():
            return
        program = str(_binaries() / "pg_basebackup")
        where = ["-h", self.primary.host, "-p", str(self.primary.port), "-U", "postgres"]
        what = ["-D", str(self._cluster), "-R", "-X", "stream", "-c", "fast", "--no-sync"]
        if user is not None:
            import os

            os.chown(self.data_dir, user.pw_uid, user.pw_gid)
        process = await asyncio.create_subprocess_exec(
            program,
            *where,
            *what,
            user=None if user is None else user.pw_uid,
            group=None if user is None else user.pw_gid,
            cwd=self.data_dir,
        )
        assert await process.wait() == 0
