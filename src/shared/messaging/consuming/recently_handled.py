"""The messages that were handled last, known again by their keys."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.messaging.consuming.in_flight import Key

_KEY = Struct(">Qq")


class Remembered:
    """The last `limit` keys, 16 bytes each.

    Each subscriber has one and fills it, and hardly ever asks: a dict of the same keys would take
    three megabytes for 10,000 of them, this takes 160 kB.
    """

    def __init__(self, limit: int) -> None:
        self._keys = bytearray()
        self._end = limit * _KEY.size
        self._next = 0

    def add(self, key: Key) -> None:
        """Remember a key, and forget the oldest if there are too many."""
        if self._next == len(self._keys):
            self._keys += _KEY.pack(*key)
        else:
            _KEY.pack_into(self._keys, self._next, *key)
        self._next = (self._next + _KEY.size) % self._end

    def __contains__(self, key: Key) -> bool:
        """Tell whether a key is among the last ones; it looks through them all."""
        wanted = _KEY.pack(*key)
        found = self._keys.find(wanted)
        while found >= 0 and found % _KEY.size:  # the end of one key, and the begin of the next
            found = self._keys.find(wanted, found + 1)
        return found >= 0
