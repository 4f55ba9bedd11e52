"""Observed many at once, a histogram shows what it shows of one after the other."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from shared.metrics.histogram import BulkHistogram

AMOUNTS = st.sampled_from([0.0, 0.005, 0.01, 0.1, 5.0]) | st.floats(0, 100)
OBSERVED = st.lists(st.tuples(AMOUNTS, st.none() | st.sampled_from("ab")))


def labels_of(trace: str | None) -> dict[str, str] | None:
    return None if trace is None else {"trace_id": trace}


def shown(histogram: BulkHistogram) -> list[tuple[object, ...]]:
    def what(sample: Sample) -> tuple[object, ...]:
        exemplar = sample.exemplar and (sample.exemplar.labels, sample.exemplar.value)
        # Sums differ in their last digits by the order in which they were made.
        return sample.name, sample.labels, round(sample.value, 6), exemplar

    (metric,) = histogram.collect()
    return [what(sample) for sample in metric.samples if not sample.name.endswith("_created")]


@given(st.lists(OBSERVED))
def test_many_at_once_are_as_one_after_the_other(
    turns: list[list[tuple[float, str | None]]],
) -> None:
    at_once, one_by_one = (
        BulkHistogram("seconds", "Seconds.", registry=CollectorRegistry(), buckets=(0.01, 0.1, 1))
        for _ in range(2)
    )
    for observed in turns:
        at_once.observe_all(observed, labels_of)
        for amount, trace in observed:
            one_by_one.observe(amount, labels_of(trace))
    assert shown(at_once) == shown(one_by_one)
