"""A stand-in package anomalib with simpler models, and an interpreter that has it."""

import sys
from pathlib import Path

# Scores a pixel by how far its features are from the mean over the images to fit, at the same place.
STAND_IN = """
from types import SimpleNamespace

import timm
import torch
import torch.nn.functional as F


class Model(torch.nn.Module):
    def __init__(self, layers, backbone, pre_trained):
        super().__init__()
        assert not pre_trained
        extractor = timm.create_model(
            backbone, pretrained=False, features_only=True, exportable=True, out_indices=layers
        )
        self.feature_extractor = torch.nn.Module()
        self.feature_extractor.feature_extractor = extractor
        self.seen = []

    def features(self, x):
        with torch.no_grad():
            return self.feature_extractor.feature_extractor(x)[0]

    def forward(self, x):
        found = self.features(x)
        if self.training:
            self.seen.append(found)
            return found
        far = (found - self.mean).square().mean(1, keepdim=True)
        score_map = F.interpolate(far, size=x.shape[-2:], mode="bilinear")
        return SimpleNamespace(pred_score=score_map.amax((1, 2, 3)), anomaly_map=score_map)

    def fit(self):
        self.mean = torch.cat(self.seen).mean(0)
        print("noise that is no news")


class PadimModel(Model):
    def __init__(self, backbone, layers, pre_trained, n_features):
        assert n_features == 64, n_features  # 24 + 40 channels
        super().__init__(layers, backbone, pre_trained)


class PatchcoreModel(Model):
    def __init__(self, layers, backbone, pre_trained):
        super().__init__(layers, backbone, pre_trained)

    def subsample_embedding(self, share):
        if share == 0.5:
            raise RuntimeError("half a coreset is too much")
        assert share == 0.01, share
        self.fit()
"""


def interpreter(folder: Path, *, package: bool = True) -> Path:
    """An interpreter as this one, with the stand-in for anomalib or, on a bare path, without any."""
    folder.mkdir(exist_ok=True)
    for module, name in (("padim", "PadimModel"), ("patchcore", "PatchcoreModel")):
        inner = folder / "anomalib/models/image" / module
        inner.mkdir(parents=True)
        (inner / "__init__.py").write_text("")
        (inner / "torch_model.py").write_text(f"from anomalib.stand_in import {name}\n")
    for part in ("anomalib", "anomalib/models", "anomalib/models/image"):
        (folder / part / "__init__.py").write_text("")
    (folder / "anomalib/stand_in.py").write_text(STAND_IN)
    metadata = folder / "anomalib-9.9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: anomalib\nVersion: 9.9\n")
    python = folder / "python"
    path = f'PYTHONPATH="{folder}" ' if package else ""
    python.write_text(f'#!/bin/sh\n{path}exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python
