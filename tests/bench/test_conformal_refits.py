"""The benchmark of refits: what it refits and counts, and what its table calls kept."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.conformal_refits import Condition, Refits, Result, table
from tests.conftest import TINY_CONFIG
from training.config import RunConfig

SPLIT = Result("split, all pictures", 0, "float32", "float32", 0.1, 10, 0.1, 99, 1.0)


@pytest.fixture(scope="module")
def refits(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refits]:
    calibration = {"fraction": 0.3, "target_fpr": 0.1, "folds": 2}
    changes = {"fit": {"epochs": 1, "batch_size": 8}, "calibration": calibration}
    config = RunConfig.model_validate({**TINY_CONFIG.model_dump(), **changes})
    with ExitStack() as held:
        yield Refits(tiny_data, "tiny", tmp_path_factory.mktemp("refits"), config, held)


def test_engines_have_features_of_their_own(refits: Refits) -> None:
    assert (refits.n_train, refits.n_test) == (32, 8)
    for exact, reduced in zip(refits.features["float32"], refits.features["bfloat16"], strict=True):
        assert exact.dtype == reduced.dtype == np.float32
        assert len(exact) == 40
        assert not np.array_equal(exact, reduced)
        assert np.corrcoef(exact.ravel(), reduced.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("condition", "n_calibration", "promised"),
    [
        (Condition("split", None), 10, 1 / 11),
        (Condition("split", 20), 6, 1 / 7),
        (Condition("cross", None), 32, 2 * (3 + 1) / 34),
        (Condition("cross", 20), 20, 2 * (2 + 1) / 22),
    ],
)
def test_every_engine_is_judged_by_every_calibration(
    refits: Refits, condition: Condition, n_calibration: int, promised: float
) -> None:
    results = refits.refit(condition, 3)
    assert len({(one.engine, one.calibrated_by, one.alpha) for one in results}) == len(results) == 12
    assert {one.n_calibration for one in results} == {n_calibration}
    assert all(0 <= one.rejected <= 8 for one in results)
    assert [one.promised for one in results if one.alpha == 0.1] == pytest.approx([promised] * 4)
    again = refits.refit(condition, 3)
    assert [one.rejected for one in again] == [one.rejected for one in results]


def test_one_engine_alone(refits: Refits, monkeypatch: pytest.MonkeyPatch) -> None:
    both = refits.refit(Condition("split", None), 3)
    monkeypatch.setattr(refits, "features", {"float32": refits.features["float32"]})
    alone = refits.refit(Condition("split", None), 3)
    assert {(one.engine, one.calibrated_by) for one in alone} == {("float32", "float32")}
    assert [replace(one, seconds=0.0) for one in alone] == [
        replace(one, seconds=0.0) for one in both if one.engine == one.calibrated_by == "float32"
    ]


def test_a_score_is_held_against_the_threshold_of_the_calibration(
    refits: Refits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features three times as large are strange to the flow: no score of one engine is like the other's."""
    strange = [3 * maps for maps in refits.features["float32"]]
    monkeypatch.setitem(refits.features, "bfloat16", strange)
    results = refits.refit(Condition("split", None), 3)
    rejected = {(one.engine, one.calibrated_by): one.rejected for one in results if one.alpha == 0.1}
    assert rejected["bfloat16", "float32"] == 8
    assert rejected["float32", "bfloat16"] == 0
    assert rejected["float32", "float32"] < 8
    assert rejected["bfloat16", "bfloat16"] < 8


def test_the_table_says_what_was_kept() -> None:
    kept = [replace(SPLIT, seed=seed, rejected=rejected) for seed, rejected in enumerate((8, 10, 11))]
    [line] = [line for line in table(kept, 100, 3).splitlines() if line.startswith("| split")]
    assert "9.67% | 8.00% to 11.00% | 10.00% | yes; 3 of 3 in their 99 % bands" in line
    broken = [replace(SPLIT, seed=seed, rejected=rejected) for seed, rejected in enumerate((60, 61, 59))]
    assert "| NO; 0 of 3 in their 99 % bands |" in table(broken, 100, 3)
    assert "| one seed does not tell; 0 of 1 in" in table(broken[:1], 100, 3)
    close = [replace(SPLIT, seed=seed, rejected=rejected) for seed, rejected in enumerate((2, 20, 9))]
    assert "| within 2 standard errors;" in table(close, 100, 3)


def test_cross_has_no_band() -> None:
    one = replace(SPLIT, condition="cross, 60 pictures", promised=0.24)
    assert "10.00% | 24.00% | yes |" in table([one, replace(one, seed=1)], 100, 3)
