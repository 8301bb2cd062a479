"""Verdicts follow from differences and their errors."""

import math

import pytest

from bench.flows.comparison import difference, table, tally, without_infinities


def test_a_difference_is_equal_within_two_standard_errors() -> None:
    # The deviation of (0, 2) is sqrt 2, the error of their mean 1.
    found = difference([0.0, 2.0])
    assert found.mean == 1
    assert found.error == pytest.approx(1)
    assert str(found) == "+1.000 ± 1.000 equal"
    assert found.verdict == "equal"
    assert difference([9.0, 11.0]).verdict == "better"
    assert difference([-9.0, -11.0]).verdict == "worse"


def test_the_noise_of_the_test_samples_counts() -> None:
    assert difference([1.0, 1.0]).verdict == "better"
    noisy = difference([1.0, 1.0], [3.0, 4.0])
    assert noisy.error == pytest.approx(2.5)
    assert noisy.verdict == "equal"


def test_a_fit_that_failed_is_a_verdict_whatever_the_rest() -> None:
    assert difference([0.0, math.inf]).verdict == "better"
    assert difference([math.inf, -math.inf]).verdict == "worse"


def test_one_seed_has_no_error() -> None:
    with pytest.raises(ValueError, match="at least 2; got 1"):
        difference([0.0])


def test_json_has_no_infinities() -> None:
    assert without_infinities({"a": [1.0, -math.inf], "b": []}) == {"a": [1.0, None], "b": []}


def test_what_is_printed() -> None:
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert tally(["better", "equal", "worse", "equal"]) == (
        "3 of 4 pairs equal or better (1 better, 2 equal, 1 worse)"
    )
