"""What is said of reviewed pictures that a calibration is made of, and what holding them takes."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.calibration_pictures import Picture, fresh, reviewed, unfair
from app.history.history import History
from app.settings import Settings
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


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(Settings(models=tmp_path / "models", history=tmp_path / "history"))
    history.database.prepare()
    yield history
    history.database.close()


class TestReviewed:
    def test_stations_with_a_calibration_of_their_own_are_left_out(self, history: History) -> None:
        stations = ["line-1", "line-3", None, "line-4"]
        made = [row(station=station, verdict="good") for station in stations]
        add(history.database, *made)

        def names(station: str | None, *without: str) -> list[str]:
            return [one.name for one in reviewed(history, "tiny", station, without, 0)]

        ids = [f"inspection {one['id']}" for one in made]
        assert names(None) == ids
        assert names(None, "line-3", "line-4") == [ids[0], ids[2]]
        assert names("line-3", "line-3") == [ids[1]]

    def test_a_part_that_is_inspected_every_day_takes_no_memory_for_each_of_its_reviews(
        self, history: History
    ) -> None:
        add(
            history.database,
            *(row(part_id="master", verdict="good" if i < 300 else None) for i in range(3000)),
        )
        tracemalloc.start()
        found = reviewed(history, "tiny", None, (), 0)
        chosen = fresh(found, [], None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (len(found), len(chosen)) == (300, 1)
        assert {len(one.of_part) for one in found} == {3000}
        assert len({id(one.of_part) for one in found}) == 1
        assert peak < 20 * 2**20  # a set of 3000 for each of 300 takes 40 MiB
