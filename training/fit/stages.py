"""The stages of a training run, from the backbone to calibrated scorers."""

from collections.abc import Mapping, Sequence
from statistics import median

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.calibration.highest_scores import (
    describe_highest_scoring,
    describe_recommended_rate,
    highest_scoring,
)
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.learning.descriptions import Descriptions
from flows.fastflow.manifest import Precision
from flows.fastflow.model.head import Head
from flows.fastflow.progress import about
from training.data.tiles import TrainingTile, choose_tiles
from training.features.backbone import require_whole_positions
from training.features.cache import GIB, FeatureCache, Features
from training.fit.calibrate import EngineCalibration, calibrate, describe_images
from training.fit.epoch_metrics import EpochMetrics
from training.fit.preparation import Run
from training.fit.tensorboard_log import TensorBoardLog
from training.fit.training_loop import fit

# Fitted images that a bundle describes: 2 MB of descriptions for the default backbone.
_MAX_DESCRIBED = 1000
_RECENT_EPOCHS = 5  # whose time predicts that of further ones


def load_extractor(run: Run) -> FeatureExtractor:
    """Load the frozen backbone onto the run's device.

    Raises:
        WeightsError: it has no such stages.
        ConfigError: its strides do not divide the input size.
    """
    config, weights = run.config, run.weights
    run.progress.say(f"backbone {weights.name}, weights from {weights.source}")
    extractor = run.backbones.extractor(config.backbone, run.input_size, run.device)
    require_whole_positions(run.input_size, extractor.strides, weights.name)
    return extractor


def compute_features(run: Run, extractor: FeatureExtractor) -> tuple[Features, list[TrainingTile]]:
    """Compute the features of all images and of their changed copies, or read them from the cache."""
    config = run.config
    tiles = choose_tiles(run.images.pinned, run.geometry, run.input_size, extractor.strides, config.fit.tiles)
    views = run.images.views(config.augment, config.seed, tiles)
    cache = FeatureCache(
        run.runs / "features",
        round(config.feature_cache.max_gib * GIB),
        extractor,
        views,
        input_size=run.input_size,
        batch_size=config.backbone.batch_size,
        geometry=run.geometry,
        sample_bits=config.sample_bits,
    )
    with run.progress.stage("features", len(views)) as advance:
        return cache.features(advance, run.progress.say), views


def fit_flows(
    run: Run, features: Features, views: Sequence[TrainingTile], log: TensorBoardLog | None
) -> Head:
    """Fit the flows to the feature maps of the images that are not held out."""
    settings = run.config.fit
    rows = run.images.rows(views)
    epochs, batches = settings.epochs_for(len(rows.fit)), settings.batches_of(len(rows.fit))
    seconds: list[float] = []

    def on_epoch(row: EpochMetrics) -> None:
        seconds.append(row.seconds)
        run.progress.say(_epoch_line(row, epochs, median(seconds[-_RECENT_EPOCHS:])))
        if log is not None:
            log.epoch(row)

    with run.progress.stage("fit", epochs) as advance:
        return fit(
            run.config,
            features,
            rows,
            device=run.device,
            folder=run.folder,
            identity=run.identity.fit,
            resume=run.resume,
            on_batch=lambda steps: advance(steps / batches),
            on_epoch=on_epoch,
        )


def build_scorers(run: Run, extractor: FeatureExtractor, head: Head) -> dict[Precision, Scorer]:
    """Build one scorer of the fitted model for each engine; they also describe images."""
    config = run.config
    rule = config.score.rule(head, run.geometry)
    return {
        engine.precision: Scorer(extractor, head, run.input_size, rule, run.geometry, engine, describes=True)
        for engine in run.engines
    }


def calibrate_engines(run: Run, scorers: Mapping[Precision, Scorer]) -> dict[Precision, EngineCalibration]:
    """Set thresholds from the held-out images; each engine uses its own scores."""
    held_out = run.images.pinned_held_out
    target_fpr = run.config.calibration.target_fpr
    with run.progress.stage("calibrate", len(held_out) * len(scorers)) as advance:
        calibrations = {
            name: calibrate(scorer, held_out, target_fpr, advance, run.config.sample_bits)
            for name, scorer in scorers.items()
        }
    scores = calibrations["float32"].scores
    names = [held_out[i].path.name for i in highest_scoring(scores)]
    run.progress.say(describe_highest_scoring(names, scores))
    if text := describe_recommended_rate(scores, target_fpr):
        run.progress.say(text)
    return calibrations


def describe_good_images(
    run: Run, scorers: Mapping[Precision, Scorer], calibrations: Mapping[Precision, EngineCalibration]
) -> Descriptions:
    """Describe fitted images, and collect the descriptions of held-out ones, to learn from reviews later."""
    rows = run.images.split.fit
    fitted = [run.images.pinned[i] for i in rows[:: -(-len(rows) // _MAX_DESCRIBED)]]
    with run.progress.stage("describe", len(fitted)) as advance:
        described, scores = describe_images(scorers["float32"], fitted, advance, run.config.sample_bits)
    held_out = {name: made.descriptions for name, made in calibrations.items()}
    return Descriptions(described, scores, held_out)


def _epoch_line(row: EpochMetrics, epochs: int, usual_seconds: float) -> str:
    """Format an epoch's losses, and the time left if further epochs take the usual time."""
    fitted = " ".join(f"{v:.3f}" for v in row.fit_nll)
    held_out = " ".join(f"{v:.3f}" for v in row.held_out_nll)
    left = "" if row.epoch == epochs else f", {about(usual_seconds * (epochs - row.epoch))} left"
    return (
        f"epoch {row.epoch} of {epochs}{left}  nats/dim: fit {fitted}, held out {held_out}  "
        f"({row.seconds:.1f} s)"
    )
