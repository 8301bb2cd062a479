"""Score histograms: sums, order of bins, and bounded memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.evaluation.metrics.histogram import ScoreHistogram

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


@given(parts=st.lists(arrays(np.float32, st.integers(1, 40), elements=FLOATS), min_size=1, max_size=6))
@pytest.mark.parametrize("max_bins", [64, 1000])
def test_sums_are_those_of_the_scores_in_each_bin(max_bins: int, parts: list[np.ndarray]) -> None:
    histogram = ScoreHistogram(2, max_bins)
    for i, part in enumerate(parts):
        histogram.add(part, [1.0, np.full(len(part), float(i))])
    lowest, sums = histogram.descending()
    scores, weights = np.concatenate(parts), np.repeat(np.arange(len(parts)), list(map(len, parts)))
    assert len(lowest) <= max_bins
    assert (np.diff(lowest) < 0).all()
    for low, end, (count, weight) in zip(lowest, histogram.above(lowest), sums, strict=True):
        inside = (scores >= low) & (scores < end)
        assert (count, weight) == (inside.sum(), weights[inside].sum())
    assert sums[:, 0].sum() == len(scores)
    if len(np.unique(scores)) <= max_bins and max_bins == 1000:
        np.testing.assert_array_equal(lowest, np.unique(scores)[::-1])


def test_negative_zero_is_zero() -> None:
    histogram = ScoreHistogram(1)
    histogram.add(np.array([0.0, -0.0], dtype=np.float32), [1.0])
    lowest, sums = histogram.descending()
    assert (lowest.tolist(), sums.tolist()) == ([0.0], [[2.0]])


def test_bins_are_fine_where_the_scores_are() -> None:
    """A quarter of a million of them, though the range holds 2^25 float32 numbers."""
    histogram = ScoreHistogram(1)
    rng = np.random.default_rng(0)
    for _ in range(8):
        histogram.add(np.exp(rng.normal(size=100_000)).astype(np.float32), [1.0])
    lowest, _ = histogram.descending()
    assert 2**16 < len(lowest) <= 2**18
    assert ((histogram.above(lowest) - lowest) / lowest).max() < 1e-4
