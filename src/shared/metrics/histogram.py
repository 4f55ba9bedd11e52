"""A histogram that takes many observations at once."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client import Histogram
from prometheus_client.samples import Exemplar

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

        Of a bucket's exemplars only the last is kept, as ever, so only that one is made. Its labels
        are not checked again: their names are ours, and short.
        """
        counts: dict[int, int] = {}
        last: dict[int, tuple[float, str | None]] = {}
        total = 0.0
        for observation in observed:
            bucket = bisect_left(self._upper_bounds, observation[0])
            counts[bucket] = counts.get(bucket, 0) + 1
            total += observation[0]
            if observation[1] is not None:
                last[bucket] = observation
        self._sum.inc(total)
        for bucket, count in counts.items():
            self._buckets[bucket].inc(count)
        for bucket, (amount, of) in last.items():
            if labels := exemplar(of):
                self._buckets[bucket].set_exemplar(Exemplar(labels, amount, time.time()))
