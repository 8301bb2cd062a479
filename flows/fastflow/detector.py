"""The detector: a published bundle, loaded and ready to inspect.

Its scores come from the `Scorer` that calibrated it, so a served score is the trained one.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.torch import load
from torch import Tensor

from flows.fastflow.backbones import find_weights
from flows.fastflow.bundle import BACKBONES, FLOW, BundleError, manifest_sha256, read_verified, verify
from flows.fastflow.conformal import Threshold, p_value
from flows.fastflow.features import FeatureExtractor, module_bytes
from flows.fastflow.heatmap import ColourScale
from flows.fastflow.images import DEFAULT_LIMITS, ImageError, decode
from flows.fastflow.manifest import Manifest
from flows.fastflow.scorer import Head, Regions, Scorer

Decision = Literal["PASS", "REJECT"]

# Float32 engines on different processors agree to about 1e-4; a bundle that is off by more than this computes
# something else than what was calibrated.
GOLDEN_TOLERANCE = 1e-3


class DeviceError(ValueError):
    """The device asked for is not there."""


@dataclass(frozen=True)
class Prediction:
    """What the detector says of one picture.

    Attributes:
        score: image score, higher is more anomalous.
        p_value: share of good parts that score at least this high, from the calibration images.
        decision: REJECT if the score is above the threshold.
        score_map: (height, width) float32 anomaly map at the model's input size.
        statistics: per scale the mean and the standard deviation of its features, see `scorer.Scored`.
    """

    score: float
    p_value: float
    decision: Decision
    score_map: NDArray[np.float32]
    statistics: tuple[float, ...]


def pick_device(name: str = "auto") -> torch.device:
    """The device for "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        DeviceError: it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"{name!r} is no device; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"FlowGauge runs on cpu and cuda; got {name!r}")
    # torch keeps an index in eight bits: of 999 it makes -25.
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        raise DeviceError(
            f"{name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices; "
            "use --device auto or cpu"
        )
    if device.type == "cuda":
        # By default convolutions there round to 10 bits (TF32), and may differ from run to run.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    return device


class Detector:
    """A calibrated model of one category, ready to inspect. Use from one thread at a time.

    Attributes:
        manifest: what the bundle says of itself.
        sha256: of the manifest's file.
        scorer: the model.
        threshold: above which score a part is rejected, and what that certifies.
        calibration_scores: of the good pictures it was calibrated on, float64, sorted, not to be written to.
        colour_scale: of heatmaps; its middle is the pixel threshold.
    """

    def __init__(self, manifest: Manifest, sha256: str, scorer: Scorer) -> None:
        self.manifest = manifest
        self.sha256 = sha256
        self.scorer = scorer
        self.device = scorer.extractor.offset.device
        self.engine = f"torch-{self.device.type}-float32"
        self.threshold = Threshold(**manifest.thresholds["float32"].model_dump())
        self.colour_scale = ColourScale(
            low=manifest.calibration.map_typical, middle=manifest.calibration.map_threshold
        )
        self.calibration_scores = np.asarray(manifest.calibration.scores, dtype=np.float64)
        self.calibration_scores.setflags(write=False)

    @classmethod
    def load(
        cls,
        bundle: Path,
        *,
        device: str = "auto",
        backbone: FeatureExtractor | None = None,
        backbones: Path | None = None,
        replayed: Collection[str] = (),
    ) -> "Detector":
        """Load a bundle, verify its hashes and shapes, and replay its golden pictures.

        Args:
            bundle: models/<category>/<version>.
            device: see `pick_device`.
            backbone: an extractor to share, on that device; taken if it is the one that the bundle needs.
            backbones: folder of the backbones' weights; by default that of the bundle's models folder.
            replayed: manifests' sha256 whose golden pictures this process has replayed on that device; since
                they cover every file, one of these is the same model and need not replay them again.

        Raises:
            BundleError: the bundle is damaged or does not score as it did when it was made.
            WeightsError: the backbone's weights are missing or others.
            DeviceError: the device is not there.
        """
        manifest = verify(bundle)
        target = pick_device(device)
        if backbone is None or not fits(backbone, manifest):
            weights = find_weights(
                manifest.backbone.name,
                folder=backbones or bundle.parent.parent / BACKBONES,
                sha256=manifest.backbone.weights_sha256,
                hub=False,
            )
            backbone = FeatureExtractor(weights, manifest.backbone.out_indices).to(target)
        _check_backbone(backbone, manifest, bundle)
        head = _load_head(bundle, manifest).to(target)
        sha256 = manifest_sha256(bundle, manifest)
        scorer = Scorer(backbone, head, manifest.input_size, manifest.score)
        detector = cls(manifest, sha256, scorer)
        if sha256 not in replayed:
            detector._replay_golden(bundle)
        return detector

    def predict(
        self, images: Sequence[NDArray[np.uint8]], regions: Regions | None = None
    ) -> list[Prediction]:
        """Inspect pictures, (H, W, 3) uint8 RGB of any sizes, as one batch.

        Args:
            images: the pictures.
            regions: per picture a region of interest or None, see `Scorer.score_features`.
        """
        features = self.scorer.features([self.prepare(image) for image in images])
        return self.predict_features(features, regions)

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring a picture (H, W, 3) to the model's input size; what `Scorer.features` takes."""
        return self.scorer.prepare(image)

    def predict_features(self, maps: Sequence[Tensor], regions: Regions | None = None) -> list[Prediction]:
        """Inspect pictures by what the backbone made of them, perhaps in one pass with other categories'.

        Args:
            maps: per scale (N, C_i, H_i, W_i), raw, from `Scorer.features` of any detector with the same
                extractor and input size.
            regions: per picture a region of interest or None, see `Scorer.score_features`.
        """
        return [
            Prediction(
                score=scored.score,
                p_value=p_value(scored.score, self.calibration_scores),
                decision="REJECT" if scored.score > self.threshold.reject else "PASS",
                score_map=scored.score_map,
                statistics=scored.statistics,
            )
            for scored in self.scorer.score_features(maps, regions)
        ]

    @property
    def nbytes(self) -> int:
        """Memory of the category's head, in bytes, without the shared backbone."""
        return module_bytes(self.scorer.head)

    def _replay_golden(self, bundle: Path) -> None:
        for golden in self.manifest.golden:
            try:
                image = decode(read_verified(bundle, self.manifest, golden.file, DEFAULT_LIMITS.max_bytes))
            except ImageError as error:
                raise BundleError(f"{bundle}: golden picture {golden.file}: {error}") from error
            score = self.scorer.score([image])[0].score
            if not abs(score - golden.score) <= GOLDEN_TOLERANCE * abs(golden.score):
                raise BundleError(
                    f"{bundle}: golden picture {golden.file} scores {score:.6g} here, "
                    f"{golden.score:.6g} when the model was made; it will not be served"
                )


def fits(extractor: FeatureExtractor, manifest: Manifest) -> bool:
    """Whether an extractor is the one that a bundle was trained on."""
    return (
        extractor.name == manifest.backbone.name
        and extractor.weights_sha256 == manifest.backbone.weights_sha256
        and list(extractor.out_indices) == manifest.backbone.out_indices
    )


def _check_backbone(extractor: FeatureExtractor, manifest: Manifest, bundle: Path) -> None:
    recorded = manifest.backbone
    for what, here, there in (
        ("channels", extractor.channels, recorded.channels),
        ("strides", extractor.strides, recorded.strides),
        ("mean", extractor.mean, recorded.mean),
        ("std", extractor.std, recorded.std),
    ):
        if list(here) != list(there):
            raise BundleError(
                f"{bundle}: {what} of {recorded.name} were {there} in training and are {list(here)} here; "
                "is this another version of timm?"
            )


def _load_head(bundle: Path, manifest: Manifest) -> Head:
    """Build the head and fill it, comparing every shape before a tensor is allocated."""

    def build() -> Head:
        return Head(manifest.backbone.channels, manifest.normalisation, manifest.flow)

    with torch.device("meta"):
        wanted = {k: tuple(v.shape) for k, v in build().state_dict().items()}
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
    head = build()
    head.load_state_dict(tensors)
    return head
