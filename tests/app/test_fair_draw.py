"""What is said of reviewed pictures that are no fair draw of good parts."""

import json
from typing import Any

import numpy as np
import pytest

from app.calibration_pictures import Picture, Recorded, reviewed
from app.fair_draw import FALSE_WARNINGS, recall, unfair
from app.history.history import History
from flows.fastflow.conformal import Threshold
from tests.app.history.rows import add, row

CERTIFIED = Threshold(3.0, 0.01, certified=True, achievable_fpr=0.01, n_calibration=300)


def drawn(**decisions: int) -> list[Picture]:
    return [
        Picture(f"inspection {decision} {i}", f"{decision} {i}", decision=decision)
        for decision, n in decisions.items()
        for i in range(n)
    ]


class TestUnfair:
    def test_as_many_as_the_rates_say_are_a_fair_draw(self) -> None:
        assert unfair(drawn(PASS=360, REVIEW=36, REJECT=4), CERTIFIED, 0.1) is None

    def test_rejected_parts_that_are_reviewed_more_often(self) -> None:
        said = unfair(drawn(PASS=380, REJECT=20), CERTIFIED, None)
        assert said is not None
        assert said.startswith("20 of 400 reviewed images had been rejected: ")

    def test_parts_of_the_review_band_that_are_reviewed_more_often(self) -> None:
        """People are asked to look at these, and random ones are passed."""
        pictures = drawn(PASS=360, REVIEW=76, REJECT=4)
        said = unfair(pictures, CERTIFIED, 0.1)
        assert said is not None
        assert said.startswith("80 of 440 reviewed images had been rejected or sent to review: ")
        assert unfair(pictures, CERTIFIED, None) is None

    def test_few_calibration_pictures_reject_more_than_was_asked_for(self) -> None:
        few = Threshold(3.0, 0.01, certified=False, achievable_fpr=1 / 13, n_calibration=12)
        pictures = drawn(PASS=185, REJECT=15)
        assert unfair(pictures, few, None) is None
        assert unfair(pictures, CERTIFIED, None) is not None

    @pytest.mark.parametrize("pictures", [[], drawn(REJECT=2), [Picture("a.png", "a", b"x")] * 9])
    def test_too_few_of_the_history_say_nothing(self, pictures: list[Picture]) -> None:
        assert unfair(pictures, CERTIFIED, 0.1) is None

    def test_a_fair_draw_is_hardly_ever_called_unfair(self) -> None:
        """Over calibrations and draws: the real rate is another than the promised one."""
        rng = np.random.default_rng(0)
        warned = 0
        for _ in range(400):
            rate = rng.beta(3, 298)
            decisions = rng.binomial(1, rate, 400)
            warned += (
                unfair(drawn(PASS=400 - decisions.sum(), REJECT=decisions.sum()), CERTIFIED, None) is not None
            )
        assert warned <= 8


def recorded(
    p_values: Any,
    calibration: str = "c",
    n: int = 999,
    *,
    promised: float | None = None,
    lowered: bool = False,
) -> list[Picture]:
    """Pictures of the history with p-values by one calibration; all were passed by whatever was in force."""
    return [
        Picture(
            f"inspection {calibration} {i}",
            f"{calibration} {i}",
            decision="PASS",
            recorded=Recorded(float(p), calibration, n, promised, lowered),
        )
        for i, p in enumerate(p_values)
    ]


def fair(rng: np.random.Generator, n: int, count: int) -> Any:
    """Conformal p-values of good parts by a calibration of n others."""
    calibration = np.sort(rng.random(n))
    return (1 + n - np.searchsorted(calibration, rng.random(count), side="left")) / (n + 1)


class TestByPValues:
    def test_passed_parts_alone_are_no_fair_draw(self) -> None:
        """Renewed so once and again, 1 % becomes 2, 3, 4 and 5 %."""
        p = fair(np.random.default_rng(0), 999, 2000)
        assert unfair(recorded(p), CERTIFIED, None) is None
        said = unfair(recorded(p[p > 0.01]), CERTIFIED, None)
        assert said is not None
        assert said.startswith(
            f"Only 0 of {np.count_nonzero(p > 0.01)} reviewed images are rejected at 0.01 by the "
            "calibration of their time: by chance it is at least 5. "
        )

    def test_parts_that_no_band_sent_to_a_person_are_no_fair_draw(self) -> None:
        p = fair(np.random.default_rng(0), 999, 2000)
        kept = p[(p <= 0.01) | (p > 0.05)]
        said = unfair(recorded(kept), CERTIFIED, 0.05)
        assert said is not None
        assert said.startswith(
            f"Only {np.count_nonzero(kept <= 0.01)} of {len(kept)} reviewed images are rejected"
        )
        assert " or sent to review at 0.05 by the calibration of their time: " in said

    def test_what_counts_is_the_calibration_of_their_time_and_not_the_rate_of_today(self) -> None:
        """All had been passed, at another rate; today's would reject one in ten."""
        p = fair(np.random.default_rng(1), 999, 1000)
        today = Threshold(3.0, 0.1, certified=True, achievable_fpr=0.1, n_calibration=300)
        assert unfair(recorded(p), today, None) is None
        said = unfair(recorded([*p, *[0.001] * 90]), today, None)
        assert said is not None
        assert (
            " of 1090 reviewed images are rejected at 0.1 by the calibration of their time: by chance" in said
        )

    def test_few_passed_parts_say_nothing(self) -> None:
        assert unfair(recorded([0.5] * 200), CERTIFIED, None) is None
        assert unfair(recorded([0.5] * 2000, n=99), CERTIFIED, None) is None  # it may have been a strict one

    def test_of_several_calibrations_each_has_its_own_chance(self) -> None:
        """Five strict ones in a row are not likely where one is."""
        several = [one for name in "abcde" for one in recorded([0.5] * 400, name, n=99)]
        said = unfair(several, CERTIFIED, None)
        assert said is not None
        assert said.startswith(
            "Only 0 of 2000 reviewed images are rejected at 0.01 by the calibration of their"
        )

    @pytest.mark.parametrize("how", [{"promised": 0.026}, {"lowered": True}])
    def test_where_scores_are_lower_than_promised_fewer_say_nothing(self, how: dict[str, Any]) -> None:
        assert unfair(recorded([0.5] * 2000, **how), CERTIFIED, None) is None
        assert unfair(recorded([*[0.5] * 400, *[0.001] * 60], **how), CERTIFIED, None) is not None

    def test_a_cross_calibration_may_reject_as_many_as_it_promises(self) -> None:
        pictures = [0.5] * 970, [0.01] * 30
        assert unfair(recorded([*pictures[0], *pictures[1]], promised=0.0264), CERTIFIED, None) is None
        assert unfair(recorded([*pictures[0], *pictures[1]]), CERTIFIED, None) is not None
        assert unfair(recorded([0.001] * 90, promised=1.0), CERTIFIED, None) is None

    def test_a_p_value_of_the_rate_itself_is_past_it(self) -> None:
        """0.29 of 99 is a whole place in mathematics, and not in floating point."""
        rate = Threshold(3.0, 0.29, certified=True, achievable_fpr=0.29, n_calibration=99)
        said = unfair(recorded([29 / 100] * 40, n=99), rate, None)
        assert said is not None
        assert said.startswith("40 of 40 reviewed images are rejected at 0.29 ")

    def test_fair_draws_are_hardly_ever_warned_of(self) -> None:
        rng, warned, rounds = np.random.default_rng(0), 0, 600
        for _ in range(rounds):
            pictures = [
                one for name, n in (("a", 199), ("b", 999)) for one in recorded(fair(rng, n, 300), name, n=n)
            ]
            warned += unfair(pictures, CERTIFIED, 0.05) is not None
        assert warned <= rounds * FALSE_WARNINGS + 3 * (rounds * FALSE_WARNINGS) ** 0.5


def answer(**changed: Any) -> str:
    threshold = {
        "n_calibration": 226,
        "achievable_fpr": 0.0088,
        "guarantee": "split",
        "calibration": {"id": "0123", "source": "bundle"},
    }
    return json.dumps({"threshold": {**threshold, **changed}, "settings": {"revision": 0, "region": None}})


class TestRecall:
    def test_what_the_kept_answer_says(self, history: History) -> None:
        cross = {"guarantee": "cross", "achievable_fpr": 0.03}
        region = {"region": {"station": None, "revision": 4}, "revision": 4}
        add(
            history.database,
            row(verdict="good", p_value=0.25, answer=answer()),
            row(verdict="good", answer=answer(**cross)),
            row(verdict="good", answer=json.dumps({**json.loads(answer()), "settings": region})),
        )
        found = recall(
            history.database, [*reviewed(history, "tiny", None, (), 0), Picture("a.png", "a", b"x")]
        )
        assert [one.recorded for one in found] == [
            Recorded(0.25, "0123", 226, None, lowered=False),
            Recorded(0.5, "0123", 226, 0.03, lowered=False),
            Recorded(0.5, "0123", 226, None, lowered=True),
            None,
        ]

    @pytest.mark.parametrize(
        "kept",
        ["", "null", "[]", "{}", '{"threshold": null}', answer(n_calibration=0), answer(achievable_fpr="x")],
    )
    def test_an_answer_that_does_not_say_enough_leaves_the_decision(
        self, history: History, kept: str
    ) -> None:
        add(history.database, *(row(verdict="good", decision="REJECT", answer=kept) for _ in range(9)))
        found = recall(history.database, reviewed(history, "tiny", None, (), 0))
        assert {one.recorded for one in found} == {None}
        said = unfair(found, CERTIFIED, None)
        assert said is not None
        assert said.startswith("9 of 9 reviewed images had been rejected: by chance it is at most 1. ")

    def test_more_pictures_than_a_page(self, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.fair_draw._PAGE", 2)
        add(history.database, *(row(verdict="good", answer=answer()) for _ in range(5)))
        found = recall(history.database, reviewed(history, "tiny", None, (), 0))
        assert len(found) == 5
        assert None not in {one.recorded for one in found}
