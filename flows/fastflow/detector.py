"""Detector: a published bundle, loaded and ready to inspect.

Training and serving share the `Scorer`, so a served score is the calibrated one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.torch import load

from flows.fastflow.backbones.recorded import (
    FrozenBackbone,
    RecordedBackbone,
    describe_difference,
    matches_manifest,
)
from flows.fastflow.backbones.uninitialised import Uninitialised
from flows.fastflow.bundle.bundle import FLOW, BundleError, manifest_sha256, read_verified, verify
from flows.fastflow.bundle.models_folder import BACKBONES
from flows.fastflow.calibration.calibrator import Calibrator, Decision
from flows.fastflow.engines.device import pick_device
from flows.fastflow.engines.engine import Engine, pick_engine
from flows.fastflow.imaging.decoder import decode_image
from flows.fastflow.imaging.geometry import PreparedImage
from flows.fastflow.imaging.image_errors import ImageError
from flows.fastflow.imaging.image_limits import FILE_LIMITS
from flows.fastflow.imaging.region_masks import RegionMasks
from flows.fastflow.inference.scored_image import ScoredImage
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.inference.tile_outputs import NotNumbersError
from flows.fastflow.manifest import Manifest, Precision
from flows.fastflow.model.head import Head

# Relative. Float32 engines on different processors agree to about 1e-4; a larger difference means that the
# bundle computes something else than what was calibrated. In bfloat16, whose numbers lie 1 in 256 apart,
# one rounding more or less makes a larger difference.
GOLDEN_TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 2e-2, "openvino-bfloat16": 2e-2}


class GoldenError(BundleError):
    """A model does not score its golden images as it did when it was made."""


class UncalibratedError(BundleError):
    """A bundle has no calibration for an engine; one can be made."""


@dataclass(frozen=True)
class Prediction:
    """Result for one image, by the calibration of its bundle.

    Attributes:
        score: image score, higher is more anomalous.
        raw_score: score of the model, for use with another calibration.
        image_part: share of the whole image in the score, see `ScoredImage`.
        p_value: share of good parts that score at least this high, from the calibration images.
        decision: decision at the bundle's own rates, see `calibrator.Thresholds`.
        score_map: (height, width) float32 anomaly map of the whole image, see `ScoredImage`.
        statistics: per scale the mean and the standard deviation of its features, see `ScoredImage`.
        learned_part: share of the learned part in the raw score, see `ScoredImage`.
    """

    score: float
    raw_score: float
    image_part: float | None
    p_value: float
    decision: Decision
    score_map: NDArray[np.float32]
    statistics: tuple[float, ...]
    learned_part: float = 0.0


class Detector:
    """Calibrated model of one category, ready to inspect. Use from one thread at a time.

    Attributes:
        manifest: manifest of the bundle.
        sha256: sha256 of the manifest's file.
        scorer: the model.
        calibrator: the bundle's own calibration for this engine, or else the fallback.

    Args:
        sha256: sha256 of the manifest's file.
        fallback: later calibration for a bundle without one for the scorer's precision.

    Raises:
        UncalibratedError: the bundle has no calibration for that precision, and there is no fallback.
    """

    def __init__(
        self, manifest: Manifest, sha256: str, scorer: Scorer, fallback: Calibrator | None = None
    ) -> None:
        precision = scorer.precision
        self.manifest = manifest
        self.sha256 = sha256
        self.scorer = scorer
        self.device = scorer.extractor.device
        self.engine = scorer.engine.name
        in_force = bundle_calibrator(manifest, sha256, precision) or fallback
        if in_force is None:
            raise UncalibratedError(
                f"{manifest.category}/{manifest.version} is not calibrated for {precision}, whose scores "
                f"differ from those of {', '.join(manifest.thresholds)}; calibrate with good images: "
                f"`flowgauge calibrate --category {manifest.category} --version {manifest.version} "
                f"--precision {precision}`, or use the precision float32"
            )
        self.calibrator = in_force

    @classmethod
    def load(
        cls,
        bundle: Path,
        *,
        device: str = "auto",
        backbone: FrozenBackbone | None = None,
        backbones: Path | None = None,
        precision: Precision = "float32",
        fallback: Calibrator | None = None,
        engine: Engine | None = None,
    ) -> "Detector":
        """Load a bundle, verify its hashes and shapes, and replay its golden images.

        Args:
            bundle: models/<category>/<version>.
            device: see `pick_device`.
            backbone: a shared backbone on that device, used if the bundle needs it.
            backbones: folder of the backbones' weights; by default that of the bundle's models folder.
            precision: precision to compute in, see `engine.pick_engine`.
            fallback: see `Detector`.
            engine: a shared engine on that device, whose precision overrides `precision`.

        Raises:
            BundleError: the bundle is damaged.
            UncalibratedError: there is no calibration for that precision.
            GoldenError: the scores of golden images changed since the bundle was made.
            WeightsError: the backbone's weights are missing, or not those of the bundle.
            DeviceError: the device is not available.
            EngineError: there is no engine of that precision, or it cannot compute this model.
        """
        manifest = verify(bundle)
        target = pick_device(device)
        if backbone is None or not matches_manifest(backbone, manifest):
            folder = backbones or bundle.parent.parent / BACKBONES
            backbone = RecordedBackbone(manifest.backbone, manifest.input_size, folder, target)
        if (other := describe_difference(backbone, manifest.backbone)) is not None:
            raise BundleError(f"{bundle}: {other}")
        head = _load_head(bundle, manifest).to(target)
        sha256 = manifest_sha256(bundle, manifest)
        rule, geometry = manifest.score, manifest.geometry
        engine = engine or pick_engine(precision, target)
        scorer = Scorer(backbone, head, manifest.input_size, rule, geometry, engine)
        if isinstance(backbone, RecordedBackbone):
            backbone.free_weights()
        detector = cls(manifest, sha256, scorer, fallback)
        detector._replay_golden(bundle)
        return detector

    def predict(
        self, images: Sequence[NDArray[np.uint8]], regions: RegionMasks | None = None
    ) -> list[Prediction]:
        """Inspect images, (H, W, 3) uint8 RGB of any sizes, as one batch.

        Args:
            regions: per image the mask of a region of interest or None, see `Scorer.score_features`.
        """
        return self.predict_prepared([self.prepare(image) for image in images], regions)

    def prepare(self, image: NDArray[np.uint8]) -> PreparedImage:
        """Scale and pad an image (H, W, 3) for the model."""
        return self.scorer.prepare(image)

    def predict_prepared(
        self, prepared: Sequence[PreparedImage], regions: RegionMasks | None = None
    ) -> list[Prediction]:
        """Inspect prepared images, see `Scorer.score_prepared`."""
        return [self._predict(scored) for scored in self.scorer.score_prepared(prepared, regions)]

    def _predict(self, scored: ScoredImage) -> Prediction:
        score = self.calibrator.score(scored)
        return Prediction(
            score=score,
            raw_score=scored.raw_score,
            image_part=scored.image_part,
            p_value=self.calibrator.p_value(score),
            decision=self.calibrator.default_thresholds.decide(score),
            score_map=scored.score_map,
            statistics=scored.statistics,
            learned_part=scored.learned_part,
        )

    @property
    def nbytes(self) -> int:
        """Memory of the category's head, in bytes, without the shared backbone."""
        return self.scorer.nbytes

    def _replay_golden(self, bundle: Path) -> None:
        scorer, precision = self.scorer, self.scorer.precision
        if not all(precision == "float32" or precision in golden.reduced for golden in self.manifest.golden):
            # The bundle has no golden scores for this precision; float32 still verifies the model.
            precision = "float32"
            scorer = scorer.with_engine(pick_engine(precision, self.device))
        for golden in self.manifest.golden:
            try:
                data = read_verified(bundle, self.manifest, golden.file, FILE_LIMITS.max_bytes)
                image = decode_image(data, FILE_LIMITS, self.manifest.sample_bits)
            except ImageError as error:
                raise BundleError(f"{bundle}: golden image {golden.file}: {error}") from error
            kind = GoldenError if scorer is self.scorer else BundleError
            try:
                score = scorer.score([image])[0].score
            except NotNumbersError as error:
                raise kind(f"{bundle}: golden image {golden.file}: {error}; it will not be served") from error
            except ValueError as error:  # maps of sizes that its Gaussian does not fit
                raise BundleError(f"{bundle}: {error}") from error
            expected = golden.score if precision == "float32" else golden.reduced[precision]
            if not abs(score - expected) <= GOLDEN_TOLERANCE[precision] * abs(expected):
                raise kind(
                    f"{bundle}: golden image {golden.file} scores {score:.6g} here, "
                    f"{expected:.6g} when the model was made; it will not be served"
                )


# Building a head takes most of the time to load it, and most models of a server share one architecture.
@lru_cache(maxsize=32)
def _shapes(*architecture: Any) -> Mapping[str, tuple[int, ...]]:
    """Return names and shapes of a head's tensors without allocating them; arguments as of `Head`."""
    with torch.device("meta"), Uninitialised():
        head = Head(*architecture)
    return MappingProxyType({k: tuple(v.shape) for k, v in head.state_dict().items()})


def _load_head(bundle: Path, manifest: Manifest) -> Head:
    """Build a head and load its weights, after every shape was checked."""
    architecture = (
        tuple(manifest.backbone.channels),
        manifest.normalisation,
        manifest.flow,
        manifest.gaussian.sizes,
        manifest.gaussian.cells,
        manifest.learned is not None,
    )
    expected = _shapes(*architecture)
    # Numbers of up to 8 bytes, and the names and shapes.
    max_bytes = sum(8 * math.prod(shape) for shape in expected.values()) + 512 * len(expected) + 2**16
    # Read once: the file may change before it is opened again.
    data = read_verified(bundle, manifest, FLOW, max_bytes)
    try:
        shapes = {name: tuple(tensor["shape"]) for name, tensor in deserialize(data)}
        if shapes != expected:
            odd = sorted(k for k in shapes.keys() | expected.keys() if shapes.get(k) != expected.get(k))
            raise BundleError(
                f"{bundle / FLOW} does not fit its manifest: {len(odd)} tensors differ, first {odd[:3]}"
            )
        tensors = load(data)
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that torch does not have
        raise BundleError(f"{bundle / FLOW} cannot be read") from error
    with Uninitialised():  # the shapes match, so every tensor is loaded
        head = Head(*architecture)
    try:
        head.load_state_dict(tensors)
    except ValueError as error:  # from a transform that validates its values, such as a permutation
        raise BundleError(f"{bundle / FLOW} holds no flow: {str(error).partition(';')[0]}") from error
    return head


def bundle_calibrator(manifest: Manifest, sha256: str, precision: Precision) -> Calibrator | None:
    """Return a bundle's own calibration for a precision; None if it has none.

    Args:
        sha256: sha256 of the manifest's file.
    """
    calibration = manifest.calibration_of(precision)
    if calibration is None:
        return None
    target_fpr = manifest.thresholds[precision].target_fpr
    return Calibrator(calibration, target_fpr, manifest.review_fpr, identifier=sha256[:12])
