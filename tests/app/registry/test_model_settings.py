from typing import Any

import pytest

from app.errors.problems import Problem
from app.registry.category_settings import CategorySettings, StoredRegion
from app.registry.model_settings import apply_settings, region_mask, require_region
from flows.fastflow.calibration.calibrator import Calibrator
from flows.fastflow.config import Geometry
from flows.fastflow.detector import Detector
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.manifest import Calibration


def fitted(detector: Detector, geometry: Geometry) -> Detector:
    scorer = detector.scorer
    manifest = detector.manifest.model_copy(update={"geometry": geometry})
    made = Scorer(scorer.extractor, scorer.head, scorer.input_size, scorer.rule, geometry=geometry)
    return Detector(manifest, detector.sha256, made)


def square(side: int, width: int, height: int) -> StoredRegion:
    area: dict[str, Any] = {
        "image": {"width": width, "height": height},
        "polygons": [[[0, 0], [side, 0], [side, side], [0, side]]],
        "revision": 1,
    }
    return StoredRegion.model_validate(area)


@pytest.mark.parametrize("fit", [Geometry(), Geometry(fit="pad"), Geometry(fit="tile")], ids=lambda g: g.fit)
def test_mask_has_the_image_size(detector: Detector, fit: Geometry) -> None:
    model = fitted(detector, fit)
    region = square(160, 640, 320)
    assert region_mask(model, region).mean() == pytest.approx(160 * 160 / (640 * 320), rel=0.05)
    require_region(model, region)


def test_tiled_region_may_be_as_small_as_in_one_tile(detector: Detector) -> None:
    """A score averages a hundredth of a tile: 41 of the image's 409,600 pixels."""
    small = square(8, 640, 640)
    with pytest.raises(Problem) as caught:
        require_region(detector, small)
    assert caught.value.name == "invalid-request"
    tiled = fitted(detector, Geometry(fit="tile"))
    require_region(tiled, small)
    with pytest.raises(Problem, match=r"The region is 0.01% .* a score averages 0.01% of it"):
        require_region(tiled, square(6, 640, 640))


def test_review_band_below_own_rate_is_empty() -> None:
    scores = [float(i) for i in range(99)]
    renewed = Calibrator(
        Calibration(scores=scores, map_typical=0.5, map_threshold=2.0), 0.2, identifier="0" * 12
    )
    taken = apply_settings(renewed, CategorySettings(review_fpr=0.1))
    assert taken.review == taken.reject.reject < renewed.threshold_at(0.1).reject
