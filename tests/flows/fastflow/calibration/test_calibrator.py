"""Calibrators: scores to p-values, and rates to thresholds."""

import dataclasses

import numpy as np
import pytest

from flows.fastflow.calibration import conformal
from flows.fastflow.calibration.calibrator import Calibrator, ImageMeasurement, calibrate
from flows.fastflow.imaging import heatmap
from flows.fastflow.inference.scored_image import ScoredImage


def measurements(scores: list[float]) -> list[ImageMeasurement]:
    return [
        ImageMeasurement(s, image_part=s / 2, peak=2 * s, median=s / 10, statistics=(s, 1.0)) for s in scores
    ]


def found(score: float, image_part: float | None = 0.5) -> ScoredImage:
    score_map = np.array([[0.0, 1.0], [2.0, 5.0]], np.float32)
    return ScoredImage(score, score_map, image_part, (3.0, 4.0))


def test_calibration_sorts_scores_and_all_that_belongs_to_them() -> None:
    made = calibrate(measurements([3.0, 1.0, 2.0]), 0.25)
    assert made.scores == [1.0, 2.0, 3.0]
    assert made.statistics == [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]
    assert made.map_threshold == conformal.compute_threshold([2.0, 4.0, 6.0], 0.25).reject
    assert made.map_typical == 0.2
    assert made.pictures == [0.5, 1.0, 1.5]


@pytest.mark.parametrize("level", [0.0, 0.5, 1e6])
def test_flat_maps_have_colours_too(level: float) -> None:
    """Images without any structure are good images, and an end of a scale is no threshold below it."""
    flat = [dataclasses.replace(one, peak=level, median=level) for one in measurements([1.0, 2.0])]
    made = calibrate(flat, 0.1)
    assert made.map_typical == level
    assert level < made.map_threshold <= level + 1e-3 * max(1, level)
    scale = Calibrator(made, 0.1, identifier="x").colour_scale
    drawn = heatmap.render_heatmap(np.full((2, 2), level, np.float32), scale)
    assert (drawn == drawn[0, 0]).all()


def test_no_images_or_no_numbers_calibrate_nothing() -> None:
    with pytest.raises(ValueError, match="at least one good image"):
        calibrate([], 0.1)
    with pytest.raises(ValueError, match="must be finite"):
        calibrate(measurements([1.0, float("nan")]), 0.1)


class TestSplit:
    def test_gives_what_split_conformal_prediction_does(self) -> None:
        scores = [float(i) for i in range(19)]
        made = Calibrator(calibrate(measurements(scores), 0.1), 0.1, identifier="x")
        assert made.threshold == conformal.compute_threshold(scores, 0.1)
        assert made.threshold_at(0.2) == conformal.compute_threshold(scores, 0.2)
        assert made.p_value(17.5) == conformal.p_value(17.5, scores)
        assert made.score(found(4.0)) == 4.0
        assert made.colour_scale.middle == made.calibration.map_threshold

    def test_region_is_ranked_among_images_without_their_whole(self) -> None:
        rng = np.random.default_rng(0)
        pixels, wholes = rng.normal(4, 0.3, 99), rng.normal(0.8, 0.1, 99)
        pixels[:3] = pixels[3]  # equal ones
        taken = [ImageMeasurement(x + w, w, 1.0, 0.5, ()) for x, w in zip(pixels, wholes, strict=True)]
        made = Calibrator(calibrate(taken, 0.05), 0.05, identifier="x")
        exact = [one.score - one.image_part for one in taken]  # as they were recorded
        alone = conformal.compute_threshold(exact, 0.05)
        for value in (*exact, *rng.normal(4, 0.5, 500), 2.0, 9.0):
            score = made.score(found(value, image_part=None))
            assert made.p_value(score) == conformal.p_value(value, exact)
            assert (score > made.threshold.reject) == (value > alone.reject)
        beyond = [made.score(found(value, image_part=None)) for value in (9.0, 10.0)]
        assert beyond[1] - beyond[0] == pytest.approx(1)


def test_score_at_a_threshold_is_not_above_it() -> None:
    made = Calibrator(calibrate(measurements([float(i) for i in range(19)]), 0.1), 0.1, identifier="x")
    banded, plain = made.thresholds(0.1, 0.3), made.thresholds(None, None)
    assert (banded.review, banded.reject.reject, plain.reject.reject) == (13.0, 17.0, 17.0)
    decisions = [banded.decide(score) for score in (13.0, 13.5, 17.0, 17.5)]
    assert decisions == ["PASS", "REVIEW", "REVIEW", "REJECT"]
    assert [plain.decide(score) for score in (17.0, 17.5)] == ["PASS", "REJECT"]


class TestWarnings:
    def test_near_is_nearer_than_the_score_of_twice_the_rank(self) -> None:
        scores = [float(i) for i in range(99)]  # the threshold of 2 % has rank 2, that of rank 4 is 95
        used = Calibrator(calibrate(measurements(scores), 0.02), 0.02, identifier="x").default_thresholds
        assert used.reject.reject == 97
        assert [score for score in np.arange(94, 101, 0.5) if used.is_near(score)] == [
            *(95.5, 96, 96.5, 97, 97.5, 98, 98.5)
        ]
        single = Calibrator(calibrate(measurements([1.0]), 0.02), 0.02, identifier="x").default_thresholds
        assert not single.is_near(1.0)

    @pytest.mark.parametrize(
        ("statistics", "share", "region", "unlike"),
        [
            ((50.0, 5.0), 0.6, 1.0, True),
            pytest.param((50.0, 5.0), 0.4, 1.0, False, id="a large defect"),
            pytest.param((10.0, 1.0), 0.6, 1.0, False, id="features of good images"),
            pytest.param((50.0, 5.0), 0.4, 0.7, True, id="more than half of a region"),
        ],
    )
    def test_unlike_is_far_in_features_and_nearly_everywhere(
        self, statistics: tuple[float, float], share: float, region: float, unlike: bool
    ) -> None:
        calibrator = Calibrator(calibrate(measurements([*map(float, range(20))]), 0.1), 0.1, identifier="x")
        score_map = np.zeros((10, 10), np.float32)
        score_map.flat[: round(100 * region)] = calibrator.colour_scale.low
        score_map.flat[: round(100 * share)] = calibrator.colour_scale.middle
        output = ScoredImage(3.0, score_map, 0.5, statistics)
        assert calibrator.is_unlike(output) is unlike
        made = calibrator.calibration.model_copy(update={"statistics": None})
        assert not Calibrator(made, 0.1, identifier="x").is_unlike(output)
