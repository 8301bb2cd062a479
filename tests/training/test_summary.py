"""Means over categories: of what was measured, and of nothing else."""

import pytest

from training.summary import METRICS, means


def summary(**figures: float) -> dict[str, object]:
    return {**dict.fromkeys(METRICS), "recall": None, "false_rejects": None, **figures}


def test_means_are_over_those_that_have_the_figure() -> None:
    found = means([summary(image_auroc=0.5, recall=1.0), summary(image_auroc=1.0), summary()])
    assert found["image_auroc"] == pytest.approx(0.75)
    assert found["recall"] == 1.0
    assert found["aupimo"] is None
    assert set(found) == {*METRICS, "recall", "false_rejects"}


def test_a_zero_counts() -> None:
    assert means([summary(false_rejects=0.0), summary(false_rejects=0.5)])["false_rejects"] == 0.25


def test_nothing_has_no_means() -> None:
    assert set(means([]).values()) == {None}
