"""Outliers: against the plain definition, with small spread and constant dimensions."""

import numpy as np
import pytest

from training.data.check import outliers
from training.data.check.outliers import LIMIT, deviations, neighbour_distances


def test_deviations_of_normal_logarithms_are_standard_ones() -> None:
    logs = np.random.default_rng(0).normal(2, 0.5, 20_000)
    found = deviations(np.exp(logs).astype(np.float32))
    assert np.median(found) == pytest.approx(0, abs=1e-6)
    assert found.std() == pytest.approx(1, abs=0.03)


def test_nearly_equal_distances_give_no_outlier() -> None:
    distances = np.full(50, 1.0, dtype=np.float32)
    distances[3] = 1.3
    assert deviations(distances).max() < LIMIT
    distances[3] = 3
    assert deviations(distances)[3] > LIMIT


def test_neighbour_distances_are_those_to_the_fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outliers, "_ROWS", 7)  # several blocks, of which the last is not full
    x = np.random.default_rng(0).normal(0, [1, 10, 100], (40, 3)).astype(np.float32)
    scaled = (x - np.median(x, 0)) / (1.4826 * np.median(np.abs(x - np.median(x, 0)), 0))
    distances = np.sqrt(((scaled[:, None] - scaled[None]) ** 2).mean(2))
    np.testing.assert_allclose(
        neighbour_distances(x, min_deviation=0.1), np.sort(distances, 1)[:, 5], rtol=1e-3
    )


def test_two_variants_of_a_part_are_both_good() -> None:
    rng = np.random.default_rng(0)
    many, few = rng.normal(0, 1, (80, 8)), rng.normal(30, 1, (20, 8))
    x = np.concatenate([many, few, rng.normal(-30, 1, (1, 8))]).astype(np.float32)
    found = deviations(neighbour_distances(x, min_deviation=0.1))
    assert (found[:100] < LIMIT).all()
    assert found[100] > LIMIT
