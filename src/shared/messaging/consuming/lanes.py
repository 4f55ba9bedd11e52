"""Order per key: of the messages of one key, the oldest goes first and alone."""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.messaging.consuming.in_flight import Key


class Lanes:
    """The messages that are not done, by the key of their order, each lane in stream order.

    Only the head of a lane may be handled. A message stays in its lane while it is away, waiting to
    be delivered again, and so keeps the later ones back; it leaves when it is done.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, list[Key]] = {}

    def enter(self, lane: str, key: Key) -> None:
        """Take a message in at its place; one that is in already stays where it is."""
        keys = self._lanes.setdefault(lane, [])
        if not keys or keys[-1] < key:
            keys.append(key)
        elif key not in keys:
            insort(keys, key)

    def leave(self, lane: str, key: Key) -> Key | None:
        """Let a message go, and return who is the head of its lane now."""
        keys = self._lanes.get(lane, [])
        if key in keys:
            keys.remove(key)
        if keys:
            return keys[0]
        self._lanes.pop(lane, None)
        return None

    def is_head(self, lane: str, key: Key) -> bool:
        """Tell whether a message is the oldest of its lane."""
        return self._lanes[lane][0] == key

    def heads(self) -> Iterator[Key]:
        """Return the oldest message of each lane."""
        return (keys[0] for keys in list(self._lanes.values()))
