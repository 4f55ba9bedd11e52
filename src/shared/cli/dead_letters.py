"""``glam dlq``: dead letters listed, grouped, shown, replayed, discarded, and who did it."""

from __future__ import annotations

import asyncio
import getpass
import inspect
import re
import signal
import socket
import sys
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path  # noqa: TC003 - typer reads it at run time
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic_core import from_json, to_json
from rich.console import Console

from shared.cli.dead_letter_view import (
    pretty,
    print_audit,
    print_groups,
    print_letters,
    told,
    told_whole,
)
from shared.cli.target import LOCAL, contracts_here
from shared.config import NatsSettings
from shared.errors import ConflictError
from shared.messaging import Bus, DeadLetterEdit, DeadLetterFilter, DeadLetters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from shared.events import Contract
    from shared.messaging import DeadLetter, DeadLetterHead, DeadLetterOutcome


app = typer.Typer(
    help="Look at dead letters; replay or discard them; see who did.", no_args_is_help=True
)

T = TypeVar("T")

_INTERRUPTED = 130
_AGO = re.compile(r"(\d+)([smhd])")
_TIMES = frozenset({"since", "until"})
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _moment(text: str) -> datetime:
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a point in time: write 2h (ago), 3d, or 2026-01-31T12:00"
        ) from error


Servers = Annotated[
    str,
    typer.Option(envvar="GLAM_NATS_SERVERS", help="NATS addresses, separated by commas."),
]
Sequence = Annotated[int, typer.Argument(help="Number of the dead letter, as listed.")]
Sequences = Annotated[
    list[int] | None, typer.Argument(help="Numbers of dead letters; or filter.", metavar="[N]...")
]
Limit = Annotated[int, typer.Option(min=1, help="So many at most.")]
After = Annotated[int, typer.Option(min=0, help="Only those with a higher number.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
All = Annotated[bool, typer.Option("--all", help="All of them: neither numbers nor filter.")]


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a filter in place of its parameter `where`.

    An option whose name is one of the command's own is called `--match-...`.
    """
    own = inspect.signature(command, eval_str=True).parameters
    names = {
        each.name if each.name not in own else f"match_{each.name}": each
        for each in fields(DeadLetterFilter)
    }

    @wraps(command)
    def filtered(**given: Any) -> None:
        values = {each.name: given.pop(name) for name, each in names.items()}
        command(where=DeadLetterFilter(**values), **given)

    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                datetime | None if each.name in _TIMES else str | None,
                typer.Option(
                    parser=_moment if each.name in _TIMES else None, help=each.metadata["help"]
                ),
            ],
        )
        for name, each in names.items()
    ]
    parameters = []
    for name, parameter in own.items():
        parameters += options if name == "where" else [parameter]
    filtered.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return filtered


@app.command("list")
@_filtered
def list_letters(
    *,
    where: DeadLetterFilter,
    limit: Limit = 100,
    after: After = 0,
    json: Json = False,
    servers: Servers = LOCAL,
) -> None:
    """List dead letters, newest last."""
    page = _with_dead_letters(servers, lambda dead: dead.page(where, limit=limit, after=after))
    if json:
        _print_json({"letters": [told(x) for x in page.letters], "next_after": page.next_after})
        return
    print_letters(page.letters)
    if page.next_after is not None:
        typer.echo(f"there are more: --after {page.next_after}")


@app.command()
@_filtered
def groups(
    *,
    where: DeadLetterFilter,
    json: Json = False,
    servers: Servers = LOCAL,
) -> None:
    """Count dead letters by handler and fingerprint: one line for each cause, most first."""
    found = _with_dead_letters(servers, lambda dead: dead.groups(where))
    if json:
        _print_json({"groups": found})
    else:
        print_groups(found)


@app.command()
def show(sequence: Sequence, *, json: Json = False, servers: Servers = LOCAL) -> None:
    """Show one dead letter whole: why it died, headers, body, and how to see its trace."""

    async def read(dead: DeadLetters) -> tuple[DeadLetter, str | None]:
        letter = await dead.get(sequence)
        try:
            return await dead.resolved(letter), None
        except ConflictError as error:
            return letter, str(error)

    letter, trouble = _with_dead_letters(servers, read)
    if json:
        _print_json(told_whole(letter))
        return
    console = Console(highlight=False)
    version = f" {letter.version}" if letter.version else ""
    for name, value in {
        "subject": letter.subject,
        "stream": f"{letter.stream} {letter.stream_sequence}",
        "handler": f"{letter.durable} of {letter.service}{version}",
        "died": f"{letter.at:%Y-%m-%d %H:%M:%S %Z}, attempts: {letter.attempts}",
        "reason": letter.reason,
        "error": letter.error_type and f"{letter.error_type}: {letter.error_message}",
        "fingerprint": letter.fingerprint,
        "correlation": letter.correlation_id,
        "trace": letter.trace_id and f"glam trace {letter.trace_id}",
        "trouble": trouble,
    }.items():
        if value:
            console.print(f"[bold]{name}:[/bold] ", end="")
            console.print(value, markup=False)
    console.print()
    for name, value in letter.headers.items():
        console.print(f"[dim]{name}:[/dim] ", end="")
        console.print(value, markup=False)
    console.print()
    console.print(pretty(letter.body), markup=False)


@app.command()
@_filtered
def replay(
    sequences: Sequences = None,
    *,
    where: DeadLetterFilter,
    everything: All = False,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="At most so many a second.")] = None,
    edit: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A file with the body to send instead."),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="payload.amount=5: a value to change first.", metavar="P=V"),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "",
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
    servers: Servers = LOCAL,
) -> None:
    """Publish dead letters to their subjects again, then take them off the list."""
    meant = _meant(sequences, where, everything=everything)
    change = _edit(edit, values)
    if edit is not None and (not isinstance(meant, list) or len(meant) > 1):
        raise typer.BadParameter("--edit is for one dead letter; name its number")
    work = _Work("replay", "replayed", limit=limit, dry_run=dry_run, yes=yes, json=json)
    _with_dead_letters(
        servers,
        lambda dead: work.do(
            dead,
            meant,
            lambda count, stop: dead.replay_all(
                meant,
                edit=change,
                dry_run=dry_run,
                rate_per_second=rate,
                limit=count,
                actor=_actor(),
                reason=reason,
                stop=stop,
            ),
        ),
        contracts=contracts_here() if change is not None else (),
    )


@app.command()
@_filtered
def discard(
    sequences: Sequences = None,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.", prompt=True)],
    where: DeadLetterFilter,
    everything: All = False,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
    servers: Servers = LOCAL,
) -> None:
    """Take dead letters off the list; the audit keeps them for 30 days more."""
    meant = _meant(sequences, where, everything=everything)
    work = _Work("discard", "discarded", limit=limit, dry_run=dry_run, yes=yes, json=json)
    _with_dead_letters(
        servers,
        lambda dead: work.do(
            dead,
            meant,
            lambda count, stop: dead.discard_all(
                meant, reason, dry_run=dry_run, limit=count, actor=_actor(), stop=stop
            ),
        ),
    )


@app.command()
def audit(
    *,
    letter: Annotated[int | None, typer.Option(help="Only of this dead letter.")] = None,
    limit: Limit = 100,
    after: After = 0,
    json: Json = False,
    servers: Servers = LOCAL,
) -> None:
    """Show who replayed or discarded what, when and why; newest last."""
    page = _with_dead_letters(
        servers, lambda dead: dead.audit(letter=letter, limit=limit, after=after)
    )
    if json:
        _print_json({"records": page.records, "next_after": page.next_after})
        return
    print_audit(page.records)
    if page.next_after is not None:
        typer.echo(f"there are more: --after {page.next_after}")


@app.command()
def restore(
    record: Annotated[int, typer.Argument(help="Number of the record in the audit.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the audit.")] = "",
    servers: Servers = LOCAL,
) -> None:
    """Put a dead letter that was discarded (or replayed) on the list again."""
    sequence = _with_dead_letters(
        servers, lambda dead: dead.restore(record, actor=_actor(), reason=reason)
    )
    typer.echo(f"restored as {sequence}")


class _Work:
    """Something done with many dead letters: counted first, agreed to, interrupted between two."""

    def __init__(
        self, verb: str, done: str, *, limit: int | None, dry_run: bool, yes: bool, json: bool
    ) -> None:
        self._verb = verb
        self._done = done
        self._limit = limit
        self._dry_run = dry_run
        self._yes = yes
        self._json = json

    async def do(
        self,
        dead: DeadLetters,
        where: DeadLetterFilter | list[int],
        begin: Callable[[int | None, asyncio.Event], AsyncIterator[DeadLetterOutcome]],
    ) -> None:
        """Do it, tell how far it came, and leave with status 1 if some could not be done."""
        count = await self._agreed(dead, where)
        stop = asyncio.Event()
        done: list[int] = []
        failed: list[dict[str, object]] = []
        with _interrupts(stop):
            async for outcome in begin(count, stop):
                letter = outcome.letter
                if outcome.error is None:
                    done.append(letter.sequence)
                    self._say(outcome.letter)
                else:
                    failed.append({"sequence": letter.sequence, "error": str(outcome.error)})
                    typer.echo(f"Error: {letter.sequence}: {outcome.error}", err=True)
        stopped = stop.is_set() and len(done) + len(failed) < count
        if self._json:
            _print_json(
                {
                    "dry_run": self._dry_run,
                    self._done: done,
                    "failed": failed,
                    "left": count - len(done) - len(failed),
                }
            )
        elif self._dry_run:
            typer.echo(f"{len(done)} would be {self._done}; nothing was done")
        elif count > 1 or stopped:
            typer.echo(f"{self._done} {len(done)} of {count}{', stopped' if stopped else ''}")
        if stopped:
            raise typer.Exit(_INTERRUPTED)
        if failed:
            raise typer.Exit(1)

    async def _agreed(self, dead: DeadLetters, where: DeadLetterFilter | list[int]) -> int:
        if isinstance(where, list):
            count = len(set(where))
        else:
            count = 0
            async for _ in dead.scan(where):
                count += 1
                if count == self._limit:
                    break
        count = min(count, self._limit or count)
        if count > 1 and not (self._yes or self._dry_run):
            typer.confirm(f"{self._verb} {count} dead letters?", abort=True, err=True)
        return count

    def _say(self, letter: DeadLetterHead) -> None:
        if self._json:
            return
        if self._dry_run:
            typer.echo(f"{letter.sequence}  {letter.subject}  {letter.durable}  {letter.reason}")
        else:
            typer.echo(f"{self._done} {letter.sequence}")


@contextmanager
def _interrupts(stop: asyncio.Event) -> Iterator[None]:
    """Take the first Ctrl-C as a wish to stop between two dead letters; the second ends at once."""
    loop = asyncio.get_running_loop()

    def first() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, first)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _meant(
    sequences: list[int] | None, where: DeadLetterFilter, *, everything: bool
) -> DeadLetterFilter | list[int]:
    """Return what is meant; nothing is meant by mistake."""
    ways = [bool(sequences), not where.is_empty, everything]
    if sum(ways) != 1:
        raise typer.BadParameter(
            "name dead letters by number, or by a filter, or --all: one of them"
        )
    return sequences or where


def _edit(file: Path | None, values: list[str] | None) -> DeadLetterEdit | None:
    if file is None and not values:
        return None
    pairs: dict[str, object] = {}
    for value in values or ():
        path, equals, text = value.partition("=")
        if not equals or not path:
            raise typer.BadParameter(f"--set {value!r}: write path=value, as payload.amount=5")
        try:
            pairs[path] = from_json(text)
        except ValueError:
            pairs[path] = text
    return DeadLetterEdit(body=file.read_bytes() if file else None, values=pairs)


def _actor() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _print_json(document: object) -> None:
    sys.stdout.write(to_json(document, indent=2).decode() + "\n")


def _with_dead_letters(
    servers: str,
    work: Callable[[DeadLetters], Awaitable[T]],
    *,
    contracts: Iterable[Contract[Any]] = (),
) -> T:
    async def connected() -> T:
        settings = NatsSettings(servers=tuple(servers.split(",")))
        async with Bus(settings, name="glam-cli") as bus:
            return await work(DeadLetters(bus, contracts=contracts))

    return asyncio.run(connected())
