"""A starter: Gaussians without flows, fitted in seconds to few images, all of which also calibrate it."""

from collections.abc import Collection
from typing import Final

import numpy as np

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.manifest import Precision
from flows.fastflow.model.head import Head
from training.data.tiles import TrainingTile
from training.features.cache import Features
from training.fit.calibrate import DescribedMeasurement, EngineCalibration, measure, set_thresholds
from training.fit.preparation import Run
from training.fit.stages import build_scorers
from training.fit.training_loop import build_head, fit_statistics

_FOLDS: Final = 10


def fit_starter(
    run: Run, features: Features, views: list[TrainingTile], left_out: Collection[int] = ()
) -> Head:
    """Fit the Gaussians to all images but those of some parts.

    Args:
        views: the image in each row of the features.
        left_out: numbers of the parts to leave out.
    """
    parts = run.images.part_numbers
    rows = np.flatnonzero([parts[view.image] not in left_out for view in views])
    head = build_head(run.config, features, run.device)
    fit_statistics(head, features, rows, run.device)
    return head.eval()


def cross_calibrate(
    run: Run, extractor: FeatureExtractor, features: Features, views: list[TrainingTile]
) -> dict[Precision, EngineCalibration]:
    """Set thresholds from scores by starters that were fitted without the scored image's part.

    Each is fitted to a tenth fewer images than the published starter, or to all but one, so its scores of
    new images are a little higher. The thresholds then reject no more than promised, as measured in
    docs/research/calibration.md; split conformal prediction proves it, cross-fitting does not.
    """
    images, config = run.images, run.config
    order = np.random.default_rng(config.seed).permutation(len(images.held_out))
    measured: dict[Precision, dict[int, DescribedMeasurement]] = {one.precision: {} for one in run.engines}
    with run.progress.stage("calibrate", len(order) * len(run.engines)) as advance:
        for i in range(min(_FOLDS, len(order))):
            fold = order[i::_FOLDS].tolist()
            parts = {int(images.part_numbers[images.split.calibration[k]]) for k in fold}
            scorers = build_scorers(run, extractor, fit_starter(run, features, views, parts))
            pinned = [images.pinned_held_out[k] for k in fold]
            for name, scorer in scorers.items():
                found = measure(scorer, pinned, advance, config.sample_bits)
                measured[name].update(zip(fold, found, strict=True))
    target_fpr = config.calibration.target_fpr
    return {
        name: set_thresholds([by_image[k] for k in range(len(order))], target_fpr, cross_fitted=True)
        for name, by_image in measured.items()
    }
