import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from app.history.rates import DECISIONS, estimate_escape, estimate_overkill
from tests.app.history.rows import decided


def exact_interval(x: int, n: int) -> tuple[float, float]:
    interval = stats.binomtest(x, n).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def test_decisions_are_weighted_by_their_inspections() -> None:
    counts = decided(PASS=(9000, 99, 1), REVIEW=(100, 30, 20), REJECT=(200, 50, 150))
    good = 9000 * 0.99 + 100 * 0.6 + 200 * 0.25
    defects = 9000 * 0.01 + 100 * 0.4 + 200 * 0.75
    assert estimate_overkill(counts).value == pytest.approx(200 * 0.25 / good)
    assert estimate_escape(counts).value == pytest.approx(9000 * 0.01 / defects)


def test_escape_is_unknown_if_only_rejects_were_reviewed() -> None:
    counts = decided(PASS=(9000, 0, 0), REJECT=(200, 50, 150))
    for rate in (estimate_escape(counts), estimate_overkill(counts)):
        assert (rate.value, rate.low, rate.high) == (None, None, None)
        assert rate.reason == "nothing was reviewed of the 9000 with decision PASS"


def test_rate_is_unknown_without_matching_parts() -> None:
    assert estimate_overkill(decided()).reason == "there are no inspections"
    only_good = decided(PASS=(50, 50, 0))
    assert estimate_escape(only_good).reason == "no part was reviewed as defect"
    none_rejected = estimate_overkill(only_good)
    assert (none_rejected.value, none_rejected.low, none_rejected.reason) == (0.0, 0.0, None)
    assert none_rejected.high == pytest.approx(exact_interval(0, 50)[1], abs=3e-3)


@pytest.mark.parametrize(("rejected", "passed"), [(0, 200), (3, 400), (20, 80), (5, 1)])
def test_interval_is_exact_if_all_was_reviewed(rejected: int, passed: int) -> None:
    rate = estimate_overkill(decided(PASS=(passed, passed, 0), REJECT=(rejected, rejected, 0)))
    low, high = exact_interval(rejected, rejected + passed)
    assert rate.value == pytest.approx(rejected / (rejected + passed))
    assert rate.low is not None
    assert rate.high is not None
    # The review band is empty, but might not have been: one more part could have been in it.
    lower, _ = exact_interval(rejected, rejected + passed + 1)
    assert 0.97 * lower <= rate.low <= 1.03 * low
    assert rate.high == pytest.approx(high, rel=0.03)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 40), st.integers(0, 40)), min_size=3, max_size=3)
)
def test_estimate_lies_in_its_interval(numbers: list[tuple[int, int, int]]) -> None:
    counts = decided(
        **{d: (n + good + bad, good, bad) for d, (n, good, bad) in zip(DECISIONS, numbers, strict=True)}
    )
    for rate in (estimate_overkill(counts), estimate_escape(counts)):
        if rate.value is None:
            assert rate.reason
            continue
        assert rate.low is not None
        assert rate.high is not None
        assert 0 <= rate.low <= rate.value + 1e-12 <= rate.high + 2e-12 <= 1 + 3e-12


# The share of parts that are good, P(decision | good), P(decision | defect), how many parts, and the
# share of each decision that is reviewed.
LINES = {
    "usual": (0.97, (0.98, 0.012, 0.008), (0.10, 0.10, 0.80), 3000, (0.03, 1.0, 1.0)),
    "few": (0.80, (0.90, 0.05, 0.05), (0.20, 0.20, 0.60), 80, (0.3, 0.6, 0.6)),
    "no band": (0.95, (0.99, 0.0, 0.01), (0.15, 0.0, 0.85), 1000, (0.1, 0.5, 0.5)),
    "all reviewed": (0.9, (0.95, 0.03, 0.02), (0.10, 0.20, 0.70), 200, (1.0, 1.0, 1.0)),
    "hardly reviewed": (0.97, (0.98, 0.012, 0.008), (0.10, 0.10, 0.80), 2000, (0.005, 0.3, 0.3)),
}


@pytest.mark.parametrize(
    "line", [line if line == "few" else pytest.param(line, marks=pytest.mark.slow) for line in LINES]
)
def test_intervals_have_the_stated_coverage(line: str) -> None:
    good_share, given_good, given_defect, parts, reviewed = LINES[line]
    rng = np.random.default_rng(11)
    truth = {"overkill": given_good[2], "escape": given_defect[0]}
    outside: dict[str, list[int]] = {"overkill": [], "escape": []}
    for _ in range(150):
        good_parts = rng.binomial(parts, good_share)
        good = rng.multinomial(good_parts, given_good)
        bad = rng.multinomial(parts - good_parts, given_defect)
        seen_of = {}
        for i, decision in enumerate(DECISIONS):
            n = int(good[i] + bad[i])
            seen = int(np.ceil(reviewed[i] * n))
            seen_good = int(rng.hypergeometric(good[i], bad[i], seen)) if n else 0
            seen_of[decision] = n, seen_good, seen - seen_good
        counts = decided(**seen_of)
        for name, rate in (("overkill", estimate_overkill(counts)), ("escape", estimate_escape(counts))):
            if rate.low is not None and rate.high is not None:
                outside[name].append(not rate.low <= truth[name] <= rate.high)
    for misses in outside.values():
        assert len(misses) > 100
        # Not more often than 5 %, up to what 150 repetitions can tell.
        assert sum(misses) <= stats.binom.ppf(0.999, len(misses), 0.05)
