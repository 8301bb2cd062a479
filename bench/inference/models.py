"""Models of the benchmark, trained for a minute on synthetic parts."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.recorded import RecordedBackbone
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import BACKBONES
from flows.fastflow.engines.engine import has_openvino
from flows.fastflow.manifest import PRECISIONS, Precision
from tests.support.fleet import jpeg, part
from tests.support.random_weights import random_weights
from training.config.run_config import RunConfig
from training.run import train
from training.terminal.progress import Silent

CATEGORY = "part"
DEFAULT = "tf_efficientnet_lite0"
SIZE = 256
PHOTOGRAPH = 900  # side of the training images and of the image files, in pixels
_GOOD = 24
# Steps, kernels and widths of anomalib's FastFlow.
_AS_ANOMALIB = {"steps": 8, "kernels": "3-1", "hidden_ratio": 1.0, "hidden_limit": None}


def trained_model(folder: Path, backbone: str = DEFAULT, *, as_anomalib: bool = False) -> Path:
    """Return the bundle of a model; train it unless an earlier run did.

    Args:
        folder: of all models of the benchmark.
        backbone: the default one with its ImageNet weights, or another with random weights.
        as_anomalib: use the kernels and widths of anomalib's flows instead of the default ones.
    """
    settings: dict[str, object] = {
        "input_size": [SIZE, SIZE],
        "device": "cpu",
        "flow": _AS_ANOMALIB if as_anomalib else {},
        "fit": {"epochs": 1, "batch_size": 4},
        "calibration": {"fraction": 0.4, "target_fpr": 0.1, "engines": _precisions()},
    }
    # Another model for other settings, other defaults or another image size.
    described = f"{PHOTOGRAPH} {RunConfig.model_validate(settings).model_dump_json()}"
    place = folder / f"{backbone}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"
    models = place / "models"
    if models_folder.active_version(models, CATEGORY) is None:
        print(f"training a model on {backbone}", file=sys.stderr, flush=True)
        good = place / "data" / CATEGORY / "train" / "good"
        good.mkdir(parents=True, exist_ok=True)
        for number in range(_GOOD):
            (good / f"{number:03}.jpg").write_bytes(jpeg(part(number, PHOTOGRAPH)))
        if backbone != DEFAULT:
            settings["backbone"] = _with_random_weights(folder, backbone)
        train(
            RunConfig.model_validate(settings),
            place / "data",
            CATEGORY,
            models=models,
            runs=place / "runs",
            resume=False,
            progress=Silent(),
        )
    return models_folder.resolve(models, CATEGORY)


def _precisions() -> list[Precision]:
    """Return the precisions of all engines that are installed."""
    return [name for name in PRECISIONS if has_openvino() or not name.startswith("openvino")]


def _with_random_weights(folder: Path, backbone: str) -> dict[str, object]:
    from safetensors.torch import save_file

    weights = folder / f"{backbone}-random.safetensors"
    if not weights.exists():  # one file for all models
        save_file(random_weights(backbone), weights)
    return {"name": backbone, "out_indices": [1, 2, 3], "weights": weights}


def bare_backbone(folder: Path) -> tuple[FeatureExtractor, tuple[int, int]]:
    """Return the backbone of a bundle and its input's (height, width)."""
    manifest = read_manifest(folder)
    weights, cpu = folder.parent.parent / BACKBONES, torch.device("cpu")
    recorded = RecordedBackbone(manifest.backbone, manifest.input_size, weights, cpu)
    return recorded.layers(), manifest.input_size


def photographs(folder: Path) -> list[Path]:
    """Write a JPEG and a PNG file of one scratched synthetic part, PHOTOGRAPH pixels a side."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    image: NDArray[np.uint8] = part(0, PHOTOGRAPH, defect=True)
    files = [folder / f"{PHOTOGRAPH}.jpg", folder / f"{PHOTOGRAPH}.png"]
    files[0].write_bytes(jpeg(image))
    files[1].write_bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
    return files
