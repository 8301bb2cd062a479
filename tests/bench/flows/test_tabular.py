"""The comparison on a table: its columns, its splits, and pairs of one size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from bench.flows import tabular
from bench.flows.models import parameters
from bench.flows.tabular import COLUMNS, Plan, rows, split


@pytest.fixture
def _libraries() -> None:
    pytest.importorskip("zuko")
    pytest.importorskip("nflows")


def test_the_columns_are_those_means_that_no_earlier_one_correlates_with() -> None:
    data = load_breast_cancer()
    correlation = np.abs(np.corrcoef(data.data[:, :10], rowvar=False))
    kept: list[int] = []
    for column in range(10):
        if all(correlation[column, other] <= 0.98 for other in kept):
            kept.append(column)
    assert tuple(data.feature_names[kept]) == COLUMNS
    assert rows().shape == (569, len(COLUMNS))


def test_a_split_has_every_row_once_and_the_training_rows_statistics() -> None:
    x = rows()
    parts = split(x, 0)
    sizes = [len(part) for part in (parts.train, parts.validation, parts.test)]
    assert sizes == [341, 114, 114]
    assert torch.allclose(parts.train.mean(0), torch.zeros(8), atol=1e-5)
    assert torch.allclose(parts.train.std(0), torch.ones(8), atol=1e-5)
    everything = torch.cat([parts.train, parts.validation, parts.test])
    assert len(torch.unique(everything, dim=0)) == len(torch.unique(x, dim=0))
    assert not torch.equal(parts.test, split(x, 1).test)
    assert torch.equal(parts.test, split(x, 0).test)


@pytest.mark.usefixtures("_libraries")
def test_pairs_have_one_size_and_ours_is_never_larger() -> None:
    pairs = Plan().pairs()
    assert len(pairs) == 4
    for pair in pairs:
        ours = parameters(pair.ours.make(len(COLUMNS), pair.width))
        theirs = parameters(pair.theirs.make(len(COLUMNS), pair.their_width))
        assert ours <= theirs < 1.05 * ours, pair.theirs.name


@pytest.mark.usefixtures("_libraries")
def test_the_quick_comparison_runs(tmp_path: Path) -> None:
    assert tabular.main(["--quick", "--out", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "tabular.json").read_text())
    assert len(figures["test_nats"]) == 6
    assert {len(values) for values in figures["test_nats"].values()} == {2}
    assert len(figures["pairs"]) == 4
