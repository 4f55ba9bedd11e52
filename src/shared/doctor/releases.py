"""Releases of nats-server that are documented to lose messages, and what older ones cannot do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.doctor.finding import Findings

if TYPE_CHECKING:
    from collections.abc import Mapping


Release = tuple[int, int, int]

_NEEDED = (2, 10)

# What falls back on servers that are older.
_SINCE: Mapping[tuple[int, int], str] = {
    (2, 11): "ordered handlers work on one message at a time in all; messages have no time to live",
    (2, 12): "a late relay is not fenced out; the outbox is not published in atomic batches; long "
    "pauses before a retry count against max_ack_pending",
}


@dataclass(frozen=True, slots=True)
class KnownLoss:
    """A loss as its source documents it; ``fixed`` is None when the source names no release."""

    first: Release
    last: Release
    fixed: Release | None
    what: str
    source: str


# Only what a source says, of the releases that it names: others may be affected or not.
KNOWN_LOSSES: tuple[KnownLoss, ...] = (
    KnownLoss(
        (2, 10, 20),
        (2, 10, 22),
        (2, 10, 23),
        "killed server processes may take a whole stream with them, at any sync_interval",
        "https://jepsen.io/analyses/nats-2.12.1",
    ),
    KnownLoss(
        (2, 12, 1),
        (2, 12, 1),
        None,
        "corrupted data files on a minority of servers may take acknowledged messages with them, "
        "at any sync_interval",
        "https://github.com/nats-io/nats-server/issues/7549",
    ),
    KnownLoss(
        (2, 12, 3),
        (2, 12, 4),
        (2, 12, 5),
        "replicated work-queue streams may lose messages that reached max_deliver (the streams of "
        "services are of another kind)",
        "https://github.com/nats-io/nats-server/issues/7817",
    ),
)


def judge_release(version: Release) -> Findings:
    """Judge a server by its version alone."""
    text = ".".join(map(str, version))
    upgrade = "upgrade nats-server to 2.12.5 or newer"
    found = Findings(f"server {text}")
    if version[:2] < _NEEDED:
        what = f"nats-server {text} is older than 2.10, which nothing here was tried with"
        found.error("server-version", what, upgrade)
        return found
    for since, what in _SINCE.items():
        if version[:2] < since:
            older = f"older than {'.'.join(map(str, since))}: {what}"
            found.warning("server-version", older, upgrade)
    for loss in KNOWN_LOSSES:
        if loss.first <= version <= loss.last:
            fixed = f"{'.'.join(map(str, loss.fixed))}" if loss.fixed else "the newest release"
            found.warning(
                "known-loss",
                f"{loss.what}: {loss.source}",
                f"upgrade nats-server to {fixed}"
                + ("" if loss.fixed else " (the source names none that mends it)"),
            )
    return found
