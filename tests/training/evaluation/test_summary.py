"""Means over categories: only of measured values."""

import pytest

from training.evaluation.summary import METRICS, exceeds_chance, means, percentage


def summary(**figures: float) -> dict[str, object]:
    return {**dict.fromkeys(METRICS), "recall": None, "false_rejects": None, **figures}


def test_means_are_over_those_that_have_the_figure() -> None:
    found = means([summary(image_auroc=0.5, recall=1.0), summary(image_auroc=1.0), summary()])
    assert found["image_auroc"] == pytest.approx(0.75)
    assert found["recall"] == 1.0
    assert found["aupimo"] is None
    assert set(found) == {*METRICS, "recall", "false_rejects"}


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 1, "0.0"),
        (1.0, 0, "100"),
        (0.5, 1, "50.0"),
        (714 / 715, 0, "99.9"),
        (0.9996, 1, "99.96"),
        (4e-4, 1, "0.04"),
        (0.0025, 2, "0.25"),
    ],
)
def test_only_all_is_a_hundred_percent_and_only_nothing_none(value: float, digits: int, text: str) -> None:
    assert percentage(value, digits) == text


@pytest.mark.parametrize(
    ("rejected", "expected", "told"), [(3, [0, 2], True), (2, [0, 2], False), (9, None, False)]
)
def test_more_rejects_than_the_calibration_lets_expect(
    rejected: int, expected: list[int] | None, told: bool
) -> None:
    summary = {"expected_rejects": expected, "false_rejects": rejected / 20, "good": 20}
    assert exceeds_chance(summary) == told
