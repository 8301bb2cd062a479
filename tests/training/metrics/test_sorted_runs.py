"""Sorted runs: everything comes back once, in order, in intervals that are bounded and tear no tie apart."""

import tempfile

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.app.full_disk import files_of_at_most
from training.metrics.sorted_runs import SortedRuns, descending


def runs_of(seed: int, decimals: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4000, 12)
    return [np.round(rng.normal(size=n), decimals).astype(np.float32) for n in sizes]


@pytest.mark.parametrize("decimals", [0, 2, 8])
@pytest.mark.parametrize("chunk", [256, 1000, 2**20])
@pytest.mark.parametrize("in_memory", [0, 1000, 2**26])
def test_everything_comes_back_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch, decimals: int, chunk: int, in_memory: int
) -> None:
    monkeypatch.setattr("training.metrics.sorted_runs._IN_MEMORY", in_memory)
    parts = runs_of(0, decimals)
    with SortedRuns() as first, SortedRuns(weighted=True) as second:
        for i, part in enumerate(parts):
            if i % 2:
                second.append(part, np.full(len(part), 0.5))
            else:
                first.append(part)
        assert first.pixels + second.pixels == sum(map(len, parts))
        found: list[NDArray[np.float32]] = []
        previous = np.inf
        for plain, weighted in descending([first, second], chunk):
            here = np.concatenate([plain.values, weighted.values])
            assert len(here) <= chunk + 256 * (len(parts) + 1)
            if len(here):
                assert here.max() < previous  # no tie is torn apart
                previous = here.min()
            np.testing.assert_array_equal(weighted.weights, 0.5 * weighted.counts)
            found += [np.repeat(e.values, e.counts) for e in (plain, weighted)]
            for entries, odd in ((plain, 0), (weighted, 1)):
                for run in np.unique(entries.runs):
                    assert np.isin(entries.values[entries.runs == run], parts[2 * run + odd]).all()
    np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.sort(np.concatenate(parts)))


def test_equal_scores_are_one_entry() -> None:
    with SortedRuns() as runs:
        runs.append(np.zeros(100_000, dtype=np.float32))
        [[entries]] = list(descending([runs]))
        assert entries.counts.tolist() == [100_000]
        assert runs.values(0).tolist() == [0.0]


def test_negative_zero_is_zero() -> None:
    with SortedRuns() as runs:
        runs.append(np.array([0.0, -0.0], dtype=np.float32))
        runs.append(np.array([-0.0], dtype=np.float32))
        found = [entries.counts.tolist() for [entries] in descending([runs], 1)]
    assert found == [[2, 1], []]


def test_nothing_is_one_empty_interval() -> None:
    with SortedRuns() as runs:
        [[entries]] = list(descending([runs]))
        assert len(entries.values) == 0


def test_the_temporary_file_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.metrics.sorted_runs._IN_MEMORY", 10)
    with SortedRuns() as runs:
        runs.append(np.arange(100, dtype=np.float32))
    with pytest.raises(ValueError, match="closed file"):
        runs.values(0)


def test_a_full_disk_is_told_with_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.metrics.sorted_runs._IN_MEMORY", 10)
    with SortedRuns() as runs, files_of_at_most(4096):
        runs.append(np.arange(100, dtype=np.float32))
        with pytest.raises(OSError, match=f"maps' scores; TMPDIR .*'{tempfile.gettempdir()}'"):
            runs.append(np.arange(1000, dtype=np.float32))
