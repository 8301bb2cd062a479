"""Manifests made up, and manifests changed behind their bundle's back."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from flows.fastflow.bundle.bundle import MANIFEST
from flows.fastflow.bundle.publication import publish
from flows.fastflow.manifest import Manifest

FILES = {"golden/0.png": b"a picture", "report/metrics.jsonl": b"{}\n"}
TENSORS = {"weight": torch.arange(6.0).reshape(2, 3)}


def manifest(category: str = "screw", version: str = "20260101T000000-abcdef") -> Manifest:
    threshold = {"reject": 3.0, "target_fpr": 0.1, "certified": False, "achievable_fpr": 0.25}
    backbone = {"name": "resnet18", "weights_sha256": "0" * 64, "mean": [0.5] * 3, "std": [0.5] * 3}
    return Manifest.model_validate(
        {
            "category": category,
            "version": version,
            "created": datetime(2026, 1, 1, tzinfo=UTC),
            "backbone": {**backbone, "out_indices": [1, 2], "channels": [64, 128], "strides": [4, 8]},
            "input_size": (64, 64),
            "geometry": {},
            "normalisation": {"mode": "channel", "pooling": 3},
            "flow": {"steps": 2},
            "score": {},
            "calibration": {"scores": [1.0, 2.0, 3.0], "map_typical": 0.5, "map_threshold": 2.0},
            "thresholds": {"float32": {**threshold, "n_calibration": 3}},
            "metrics": {"fit_nll": 1.0},
            "data": {"fingerprint": "1" * 64, "licence": None, "n_fit": 7, "n_calibration": 3},
            "libraries": {"torch": "2"},
            "golden": [{"file": "golden/0.png", "score": 1.0}],
            "files": {},
        }
    )


def made(models: Path, category: str = "screw", version: str = "20260101T000000-abcdef") -> Path:
    return publish(models, manifest(category, version), TENSORS, FILES)


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads((bundle / MANIFEST).read_text())
    change(document)
    (bundle / MANIFEST).write_text(json.dumps(document))


def rehash(bundle: Path) -> None:
    """Make the manifest list the files as they are now: damage then passes the first line of defence."""
    files = {
        path.relative_to(bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bundle.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    edit(bundle, lambda document: document.update(files=files))
