"""The detector: a published bundle, loaded and ready to inspect.

Its scores come from the `Scorer` that calibrated it, so a served score is the trained one.
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
from flows.fastflow.inference.scorer import NotNumbersError, Scorer
from flows.fastflow.manifest import Manifest, Precision
from flows.fastflow.model.head import Head

# Float32 engines on different processors agree to about 1e-4; a bundle that is off by more than this computes
# something else than what was calibrated.
# In bfloat16, whose numbers lie 1 in 256 apart, they agree to as much as one rounding more or less moves.
GOLDEN_TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 2e-2, "openvino-bfloat16": 2e-2}


class GoldenError(BundleError):
    """A model does not score its golden pictures as it did when it was made."""


class UncalibratedError(BundleError):
    """A bundle has no calibration for an engine, which may be made for it."""


@dataclass(frozen=True)
class Prediction:
    """What the detector says of one picture, by the calibration of its bundle.

    Attributes:
        score: image score, higher is more anomalous.
        raw_score: the score as the model gives it, which another calibration may be asked about.
        image_part: what the whole picture added to it, see `scored.ScoredImage`.
        p_value: share of good parts that score at least this high, from the calibration images.
        decision: by the bundle's own rates, see `calibration.Thresholds`.
        score_map: (height, width) float32 anomaly map of the whole picture, see `scored.ScoredImage`.
        statistics: per scale the mean and the standard deviation of its features, see `scored.ScoredImage`.
    """

    score: float
    raw_score: float
    image_part: float | None
    p_value: float
    decision: Decision
    score_map: NDArray[np.float32]
    statistics: tuple[float, ...]


class Detector:
    """A calibrated model of one category, ready to inspect. Use from one thread at a time.

    Attributes:
        manifest: what the bundle says of itself.
        sha256: of the manifest's file.
        scorer: the model.
        calibrator: the bundle's own calibration for this engine, or else what was given for it.

    Args:
        manifest: of the bundle.
        sha256: of the manifest's file.
        scorer: the model.
        fallback: for a bundle that was not calibrated for the scorer's precision: a calibration made later.

    Raises:
        UncalibratedError: the bundle has no calibration for that precision, and none was given.
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
                f"{manifest.category}/{manifest.version} was not calibrated for {precision} engines, whose "
                f"scores are others than those of {', '.join(manifest.thresholds)}; `flowgauge calibrate "
                f"--category {manifest.category} --version {manifest.version} --precision {precision}` makes "
                "up for it with good pictures, or use the precision float32"
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
        """Load a bundle, verify its hashes and shapes, and replay its golden pictures.

        Args:
            bundle: models/<category>/<version>.
            device: see `pick_device`.
            backbone: one to share, on that device; taken if it is the one that the bundle needs.
            backbones: folder of the backbones' weights; by default that of the bundle's models folder.
            precision: what to compute in, see `engines.pick_engine`.
            fallback: see `Detector`.
            engine: what computes, to be shared, on that device; its precision is the one that counts.

        Raises:
            BundleError: the bundle is damaged.
            UncalibratedError: there is no calibration for that precision.
            GoldenError: it does not score as it did when it was made.
            WeightsError: the backbone's weights are missing or others.
            DeviceError: the device is not there.
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
        """Inspect pictures, (H, W, 3) uint8 RGB of any sizes, as one batch.

        Args:
            images: the pictures.
            regions: per picture a region of interest or None, see `Scorer.score_features`.
        """
        return self.predict_prepared([self.prepare(image) for image in images], regions)

    def prepare(self, image: NDArray[np.uint8]) -> PreparedImage:
        """Bring a picture (H, W, 3) to where the model takes it from."""
        return self.scorer.prepare(image)

    def predict_prepared(
        self, prepared: Sequence[PreparedImage], regions: RegionMasks | None = None
    ) -> list[Prediction]:
        """Inspect prepared pictures, see `Scorer.score_prepared`."""
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
        )

    @property
    def nbytes(self) -> int:
        """Memory of the category's head, in bytes, without the shared backbone."""
        return self.scorer.nbytes

    def _replay_golden(self, bundle: Path) -> None:
        scorer, precision = self.scorer, self.scorer.precision
        if not all(precision == "float32" or precision in golden.reduced for golden in self.manifest.golden):
            # A precision that nobody thought of when the bundle was made: that it is the model can be told.
            precision = "float32"
            scorer = scorer.with_engine(pick_engine(precision, self.device))
        for golden in self.manifest.golden:
            try:
                data = read_verified(bundle, self.manifest, golden.file, FILE_LIMITS.max_bytes)
                image = decode_image(data, FILE_LIMITS, self.manifest.sample_bits)
            except ImageError as error:
                raise BundleError(f"{bundle}: golden picture {golden.file}: {error}") from error
            kind = GoldenError if scorer is self.scorer else BundleError
            try:
                score = scorer.score([image])[0].score
            except NotNumbersError as error:
                raise kind(
                    f"{bundle}: golden picture {golden.file}: {error}; it will not be served"
                ) from error
            except ValueError as error:  # of maps that its Gaussian was not made for
                raise BundleError(f"{bundle}: {error}") from error
            expected = golden.score if precision == "float32" else golden.reduced[precision]
            if not abs(score - expected) <= GOLDEN_TOLERANCE[precision] * abs(expected):
                raise kind(
                    f"{bundle}: golden picture {golden.file} scores {score:.6g} here, "
                    f"{expected:.6g} when the model was made; it will not be served"
                )


# Building a head takes most of loading it, and the models of a server mostly have one architecture.
@lru_cache(maxsize=32)
def _shapes(*architecture: Any) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of a head's tensors, none of which is allocated; the arguments are those of `Head`."""
    with torch.device("meta"), Uninitialised():
        head = Head(*architecture)
    return MappingProxyType({k: tuple(v.shape) for k, v in head.state_dict().items()})


def _load_head(bundle: Path, manifest: Manifest) -> Head:
    """Build the head and fill it, comparing every shape before a tensor is allocated."""
    architecture = (
        tuple(manifest.backbone.channels),
        manifest.normalisation,
        manifest.flow,
        manifest.gaussian.sizes,
    )
    wanted = _shapes(*architecture)
    # Numbers of up to 8 bytes, and the names and shapes.
    most = sum(8 * math.prod(shape) for shape in wanted.values()) + 512 * len(wanted) + 2**16
    # Read once: a file that is opened again may be another one by then.
    data = read_verified(bundle, manifest, FLOW, most)
    try:
        found = {name: tuple(tensor["shape"]) for name, tensor in deserialize(data)}
        if found != wanted:
            odd = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
            raise BundleError(
                f"{bundle / FLOW} does not fit its manifest: {len(odd)} tensors differ, first {odd[:3]}"
            )
        tensors = load(data)
    except (SafetensorError, KeyError) as error:  # the latter for numbers of a kind that torch has not
        raise BundleError(f"{bundle / FLOW} cannot be read") from error
    with Uninitialised():  # every tensor that is wanted was found, and is loaded
        head = Head(*architecture)
    try:
        head.load_state_dict(tensors)
    except ValueError as error:  # of a transform that looks at what it is given, as permutations do
        raise BundleError(f"{bundle / FLOW} holds no flow: {str(error).partition(';')[0]}") from error
    return head


def bundle_calibrator(manifest: Manifest, sha256: str, precision: Precision) -> Calibrator | None:
    """A bundle's own calibration for an engine, None where it has none; `sha256` is its manifest's."""
    calibration = manifest.calibration_of(precision)
    if calibration is None:
        return None
    asked = manifest.thresholds[precision].target_fpr
    return Calibrator(calibration, asked, manifest.review_fpr, identifier=sha256[:12])
