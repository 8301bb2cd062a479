"""Fleets: folders of trained models in several categories and versions, and images."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.fastflow.backbones.recorded import FrozenBackbone
from flows.fastflow.bundle import models_folder
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import decode_image
from training.config.run_config import RunConfig
from training.run import train
from training.terminal.progress import Silent

IMAGES = 32
_GOOD = 24  # images to fit and calibrate with
# Below this side the default backbone's last stage has too few pixels.
_DEFAULT_SIZE = 256


@dataclass(frozen=True)
class Fleet:
    """Models for a server, and images to send to it.

    Attributes:
        models: the models folder.
        versions: of each category; the first is the oldest and active.
        images: JPEG files of parts, good and scratched.
        size: side of the models' input and of the images.
    """

    models: Path
    versions: Mapping[str, tuple[str, ...]]
    images: tuple[bytes, ...]
    size: int

    @property
    def categories(self) -> list[str]:
        return sorted(self.versions)

    def copy(self, folder: Path) -> "Fleet":
        """Copy the models to another folder, for a server that changes them."""
        return Fleet(shutil.copytree(self.models, folder), self.versions, self.images, self.size)

    def scores(self) -> dict[tuple[str, str], list[float]]:
        """Score all images with each version of each category, without the service."""
        images = [decode_image(image) for image in self.images]
        backbone: FrozenBackbone | None = None
        scores = {}
        for category, versions in self.versions.items():
            for version in versions:
                folder = self.models / category / version
                detector = Detector.load(folder, device="cpu", backbone=backbone)
                backbone = detector.scorer.extractor
                scores[category, version] = [p.score for p in detector.predict(images)]
        return scores


def make(
    folder: Path, *, size: int = _DEFAULT_SIZE, categories: int = 8, versions: int = 2, name: str = "part"
) -> Fleet:
    """Train a fleet, or load the one that an earlier run left in the folder.

    Every version of every category has its own seed, so a score identifies the version. Models of size 256
    have the default settings; smaller ones have fewer stages and steps.
    """
    models = folder / "models"
    names = [f"{name}{number}" for number in range(categories)]
    images = tuple(jpeg(part(1000 + i, size, defect=i % 4 == 3)) for i in range(IMAGES))
    for number, category in enumerate(names):
        have = models_folder.versions(models, category)
        for version in range(len(have), versions):
            _train(folder, category, size, seed=number * 100 + version)
        models_folder.activate(models, category, models_folder.versions(models, category)[0])
    found = {category: tuple(models_folder.versions(models, category)) for category in names}
    return Fleet(models, found, images, size)


def unique(image: bytes, number: int) -> bytes:
    """Add a comment with a number to a JPEG (ITU-T T.81, B.2.4.5): the same pixels in another file."""
    comment = f"{number:020}".encode()
    return image[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + image[2:]


def _config(size: int, seed: int) -> RunConfig:
    settings: dict[str, object] = {
        "seed": seed,
        "input_size": [size, size],
        "device": "cpu",
        "fit": {"epochs": 1, "batch_size": 4},
        "calibration": {"fraction": 0.4, "target_fpr": 0.1},
    }
    if size < _DEFAULT_SIZE:
        settings |= {"backbone": {"out_indices": [1, 2]}, "flow": {"steps": 4}}
    return RunConfig.model_validate(settings)


def _train(folder: Path, category: str, size: int, seed: int) -> None:
    good = folder / "data" / category / "train" / "good"
    if not good.exists():
        good.mkdir(parents=True)
        for number in range(_GOOD):
            (good / f"{number:03}.jpg").write_bytes(jpeg(part(number, size)))
    models, runs = folder / "models", folder / "runs"
    train(
        _config(size, seed), folder / "data", category,
        models=models, runs=runs, resume=False, progress=Silent(),
    )  # fmt: skip


def part(seed: int, size: int, *, defect: bool = False) -> NDArray[np.uint8]:
    """Draw a brushed disc, (size, size, 3) RGB, with a bright scratch if it is defective."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    dx, dy = rng.uniform(-0.02, 0.02, 2)
    disc = (np.hypot(x - dx, y - dy) < 0.38).astype(np.float32)
    brushed = cv2.GaussianBlur(rng.normal(0, 1, (size, size)).astype(np.float32), (15, 1), 4)
    grey = 60 + 80 * cv2.GaussianBlur(disc, (5, 5), 1) + 12 * brushed + rng.normal(0, 2, (size, size))
    rgb = np.stack([grey, 0.95 * grey, 0.9 * grey], 2).clip(0, 255).astype(np.uint8)
    if defect:
        x0, y0 = (int(v) for v in rng.integers(size // 3, size // 2, 2))
        cv2.line(rgb, (x0, y0), (x0 + size // 5, y0 + size // 8), (250, 240, 230), max(2, size // 40))
    return rgb


def jpeg(image: NDArray[np.uint8]) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
