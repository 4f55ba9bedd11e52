"""What happened, written down while it happens, and what must hold of it.

In the manner of Jepsen: every process writes what it sets out to do (`invoke`) and what came of it
(`ok`: it did; `fail`: it surely did not; `info`: nobody knows). The checker reads all of it
afterwards and looks for what must not be.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


# Counter-examples of a kind that are printed; the rest is counted.
_SHOWN = 5


class Outcome(StrEnum):
    """What is known of an operation."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a history.

    Attributes:
        what: `publish` (an event and the rows of its transaction), `effect` (of an event, in the
            order in which effects were applied), `ack`, `fault`; others are kept and not judged.
        outcome: what is known of it.
        event: the id of the event; of a fault its kind.
        key: events of one key have an order.
        number: the place of the event in the order of its key, growing.
        by: the process; of an effect the subscriber, who must apply each event once.
        at: seconds, by the clock of the machine (`time.time`).
        note: anything.
    """

    what: str
    outcome: Outcome
    event: str
    key: str | None = None
    number: int | None = None
    by: str = ""
    at: float = 0.0
    note: str = ""

    def line(self) -> str:
        """The entry as a line of JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps({name: value for name, value in fields.items() if value != ""})

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line.

        Raises:
            ValueError: it is not an entry.
        """
        try:
            fields = json.loads(line)
            return cls(**{**fields, "outcome": Outcome(fields["outcome"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an entry of a history: {line!r}") from error


class History:
    """An append-only file of entries, one process's part of what happened.

    Each entry goes to the system in one write before `add` returns: what was written down survives
    the `kill -9` of its process. Several processes may write one file.

    >>> with History(folder / "history.jsonl", by="till") as history:
    ...     history.add("publish", Outcome.OK, "paid-7")
    ...     history.add("effect", Outcome.OK, "paid-7")
    ...     history.add("effect", Outcome.OK, "paid-7")
    >>> check(History.read([history.path])).doubled
    ['event paid-7 took effect 2 times by till']
    """

    def __init__(self, path: Path, *, by: str = "") -> None:
        self.path = path
        self.by = by
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(
        self,
        what: str,
        outcome: Outcome,
        event: str,
        *,
        key: str | None = None,
        number: int | None = None,
        note: str = "",
    ) -> None:
        """Write down one entry, with the time."""
        self.add_all([Entry(what, outcome, event, key, number, self.by, time.time(), note)])

    def add_all(self, entries: Sequence[Entry]) -> None:
        """Write down the entries as they are, in one write."""
        if entries:
            os.write(self._file, "".join(f"{entry.line()}\n" for entry in entries).encode())

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def read(paths: Iterable[Path]) -> Iterator[Entry]:
        """Read the entries of all files, file by file; a line that was cut off is passed over.

        Raises:
            ValueError: a whole line is not an entry.
        """
        for path in paths:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    if line.endswith("\n"):
                        yield Entry.parse(line)


@dataclass(slots=True)
class Verdict:
    """What the checker found; each list holds one sentence for each counter-example.

    Attributes:
        lost: acknowledged events without an effect.
        doubled: events that took effect more than once.
        misordered: effects of a key in another order than its events.
        invented: effects of events that nobody published, or that surely were not.
        acknowledged: how many events are known to be published.
        unknown: how many may be published or not; either is right.
        effects: how many effects there are.
        faults: how many faults, by kind.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    misordered: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    acknowledged: int = 0
    unknown: int = 0
    effects: int = 0
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not (self.lost or self.doubled or self.misordered or self.invented)

    def __str__(self) -> str:
        lines = [
            (
                f"{self.acknowledged} events acknowledged, {self.unknown} in doubt, "
                f"{self.effects} effects, {sum(self.faults.values())} faults"
            )
        ]
        for name in ("lost", "doubled", "misordered", "invented"):
            found: list[str] = getattr(self, name)
            lines.append(f"{name}: {len(found)}")
            lines += [f"  {example}" for example in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"  ... and {len(found) - _SHOWN} more")
        return "\n".join(lines)


def check(
    history: Iterable[Entry], *, subscribers: Sequence[str] = (), ordered: bool = True
) -> Verdict:
    """Judge a history that is complete: all is delivered that ever will be.

    The entries of different processes may be mixed in any way; only the effects of one subscriber
    must come in the order in which they were applied.

    Args:
        history: the entries.
        subscribers: who must have applied every event; by default those who applied any.
        ordered: whether events of a key take effect in their order.
    """
    verdict = Verdict()
    outcomes: dict[str, Outcome] = {}
    published: dict[str, Entry] = {}
    applied: dict[str, list[Entry]] = defaultdict(list)
    for entry in history:
        if entry.what == "publish":
            published[entry.event] = entry
            outcomes[entry.event] = _known(outcomes.get(entry.event), entry.outcome)
        elif entry.what == "effect" and entry.outcome is Outcome.OK:
            applied[entry.by].append(entry)
        elif entry.what == "fault" and entry.outcome is Outcome.INVOKE:
            verdict.faults[entry.event] = verdict.faults.get(entry.event, 0) + 1
    acknowledged = [event for event, outcome in outcomes.items() if outcome is Outcome.OK]
    verdict.acknowledged = len(acknowledged)
    verdict.unknown = sum(
        outcome in {Outcome.INFO, Outcome.INVOKE} for outcome in outcomes.values()
    )
    verdict.effects = sum(len(effects) for effects in applied.values())
    for subscriber in subscribers or applied or ("nobody",):
        effects = applied.get(subscriber, [])
        _check_each(verdict, subscriber, effects, outcomes)
        had = {effect.event for effect in effects}
        verdict.lost += [
            f"{_named(published[event])} was acknowledged and has no effect by {subscriber}"
            for event in acknowledged
            if event not in had
        ]
        if ordered:
            _check_order(verdict, subscriber, effects)
    return verdict


def _known(before: Outcome | None, now: Outcome) -> Outcome:
    """What is known of an operation: a definite outcome outweighs a doubt, whichever came first."""
    definite = {Outcome.OK, Outcome.FAIL}
    return before if before in definite and now not in definite else now


def _check_each(
    verdict: Verdict, subscriber: str, effects: Sequence[Entry], outcomes: dict[str, Outcome]
) -> None:
    times: dict[str, list[Entry]] = defaultdict(list)
    for effect in effects:
        times[effect.event].append(effect)
    for event, found in times.items():
        if len(found) > 1:
            notes = ", ".join(effect.note for effect in found if effect.note)
            verdict.doubled.append(
                f"{_named(found[0])} took effect {len(found)} times by {subscriber}"
                + (f": {notes}" if notes else "")
            )
        outcome = outcomes.get(event)
        if outcome is None:
            verdict.invented.append(
                f"{_named(found[0])} took effect by {subscriber}, and nobody published it"
            )
        elif outcome is Outcome.FAIL:
            verdict.invented.append(
                f"{_named(found[0])} took effect by {subscriber}, and its transaction was undone"
            )


def _check_order(verdict: Verdict, subscriber: str, effects: Sequence[Entry]) -> None:
    last: dict[str, Entry] = {}
    seen: set[str] = set()
    for effect in effects:
        if effect.key is None or effect.number is None or effect.event in seen:
            continue
        seen.add(effect.event)
        before = last.get(effect.key)
        if before is not None and before.number is not None and before.number > effect.number:
            verdict.misordered.append(
                f"{_named(effect)} took effect by {subscriber} after {_named(before)}"
            )
        else:
            last[effect.key] = effect


def _named(entry: Entry) -> str:
    place = f" ({entry.key} #{entry.number})" if entry.key is not None else ""
    return f"event {entry.event}{place}"
