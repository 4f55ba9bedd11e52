"""A histogram that takes many observations at once."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class BulkHistogram(Histogram):
    """prometheus_client's histogram; its buckets may be counted up once for many observations."""

    def observe_all(
        self,
        observed: Iterable[tuple[float, str | None]],
        exemplar: Callable[[str | None], dict[str, str] | None],
    ) -> None:
        """Observe amounts, each with what its exemplar is made of.

        Of a bucket's exemplars only the last is kept, as ever, so only that one is made.
        """
        last: dict[int, tuple[float, str | None]] = {}
        counts = [0] * len(self._buckets)
        others = 0.0
        for observation in observed:
            bucket = bisect_left(self._upper_bounds, observation[0])
            if bucket in last:
                counts[bucket] += 1
                others += last[bucket][0]
            last[bucket] = observation
        for bucket, (amount, of) in last.items():
            if counts[bucket]:
                self._buckets[bucket].inc(counts[bucket])
            self.observe(amount, exemplar(of))
        if others:
            self._sum.inc(others)
