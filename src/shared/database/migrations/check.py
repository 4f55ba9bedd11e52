"""Whether models, revisions and schema agree, and what is dangerous on the way: for CI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import GlamBaseError

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import MetaData

    from shared.database.migrations.migrations import Migrations


async def check_migrations(
    migrations: Migrations,
    metadata: MetaData,
    tables: Collection[str],
    *,
    target: str,
    everything: bool = False,
    rehearse: bool = False,
) -> list[str]:
    """Return what is wrong, each with what to type; empty when all is well.

    Args:
        migrations: the revisions, and the database they are compared with.
        metadata: of the models.
        tables: those of ``metadata`` that belong to the service.
        target: how the service is named on the command line.
        everything: lint the revisions that are applied as well.
        rehearse: run every revision forward, back and forward again first. For a database whose
            data nobody misses.

    Raises:
        MigrationError: the revisions cannot be read: several newest ones, a file that does not
            compile, a schema at an unknown revision.
        DatabaseError: the database is away.
    """
    migrations.newest()
    pending = await migrations.pending()
    problems = [str(finding) for finding in await migrations.lint(None if everything else pending)]
    schema = migrations.database.schema
    if rehearse:
        problems += await _rehearse(migrations)
        pending = await migrations.pending()
    if pending:
        problems.append(
            f"schema {schema} lacks {', '.join(pending)}; type: glam migrate up {target}"
        )
        return problems  # what else differs may be in them
    drift = await migrations.drift(metadata, tables=tables)
    if drift:
        problems += [f"schema {schema}: {difference}" for difference in drift]
        problems.append(f'type: glam migrate new {target} "what changes"')
    return problems


async def _rehearse(migrations: Migrations) -> list[str]:
    """Run each revision forward, back and forward: the way back is tried before it is needed."""
    problems = []
    before = "base"
    for revision in reversed(migrations.history()):
        way = "forward"
        try:
            await migrations.upgrade(revision.id)
            way = "back"
            await migrations.downgrade(before)
            way = "forward, after it was taken back,"
            await migrations.upgrade(revision.id)
        except NotImplementedError:
            pass  # it says in words that there is no way back
        except GlamBaseError as error:
            problems.append(f"{revision.id} fails {way}: {error.message}")
            if way != "back":
                return problems
        before = revision.id
    return problems
