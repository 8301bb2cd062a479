import numpy as np

from app.inspection.warnings import find_warnings
from flows.fastflow.calibration.calibrator import Calibrator
from flows.fastflow.inference.scored_image import ScoredImage
from flows.fastflow.manifest import Calibration
from tests.flows.fastflow.manifests import manifest


def test_each_warning_has_its_cause() -> None:
    trained = manifest()
    starter = trained.model_copy(update={"flow": trained.flow.model_copy(update={"steps": 0})})
    scores = [*map(float, range(20))]
    statistics = [[score % 7, score % 3] for score in scores]
    calibration = Calibration(scores=scores, statistics=statistics, map_typical=0.5, map_threshold=2.0)
    used = Calibrator(calibration, 0.05, identifier="x").default_thresholds

    def image(score: float, *statistics: float) -> ScoredImage:
        return ScoredImage(score, np.full((4, 4), 2.0, np.float32), 0.0, statistics)

    assert find_warnings(trained, used, 5.0, image(5.0, 3.0, 1.0)) == []
    assert find_warnings(trained, used, 18.5, image(18.5, 3.0, 1.0)) == ["near-threshold"]
    assert find_warnings(trained, used, 90.0, image(90.0, 70.0, 1.0)) == ["unlike-training"]
    assert find_warnings(starter, used, 5.0, image(5.0, 3.0, 1.0)) == ["starter-model"]
