import numpy as np
import pytest

from app.errors.problems import Problem
from app.recalibration.recalibrate import describe_differences, require_usable_images
from flows.fastflow.bundle.image_digests import ImageDigests
from flows.fastflow.manifest import Calibration

SHA = [f"{i:064x}" for i in range(20, 0, -1)]
# The first digits decide, which of these numbers are all 0.
FITTED = ImageDigests(["f" * 16])


def calibration(scores: "np.ndarray[tuple[int], np.dtype[np.float64]]", **changes: object) -> Calibration:
    known = {"scores": sorted(scores.tolist()), "map_typical": 0.0, "map_threshold": 1.0}
    return Calibration.model_validate({**known, **changes})


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "needs good images"),
        ([("a.png", SHA[0]), ("b.png", "f" * 64)], r"was fitted to b\.png"),
        ([("a.png", SHA[0]), ("b.png", SHA[1]), ("c.png", SHA[0])], r"are identical: a\.png, c\.png"),
        ([(str(i), "f" * 64) for i in range(8)], "0, 1, 2, 3, 4 and 3 more"),
    ],
)
def test_unusable_images_are_named(images: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(Problem, match=message):
        require_usable_images(images, FITTED)


def test_fresh_images_are_accepted() -> None:
    require_usable_images([(f"{i}.png", sha256) for i, sha256 in enumerate(SHA)], FITTED)
    require_usable_images([("a.png", "f" * 64)], None)  # a version that does not say what it was fitted to


def test_similar_images_give_no_warning() -> None:
    rng = np.random.default_rng(0)
    named = sum(
        bool(describe_differences(calibration(rng.normal(size=60)), calibration(rng.normal(size=60))))
        for _ in range(300)
    )
    assert named <= 9  # at most 1 % of 300 by chance; more than 9 has a chance of 0.1 %


def test_differences_are_named_with_direction() -> None:
    rng = np.random.default_rng(1)
    moments = rng.normal(size=(60, 2))
    before = calibration(rng.normal(size=60), statistics=moments.tolist())
    darker = calibration(rng.normal(size=60), statistics=(moments - [3, 0]).tolist())
    [one] = describe_differences(before, darker)
    assert one.startswith("features of scale 0, mean: lower than in the calibration before")
    # One that has no statistics is compared by scores alone.
    [score] = describe_differences(before, calibration(rng.normal(2, size=60)))
    assert score.startswith("score: higher")
