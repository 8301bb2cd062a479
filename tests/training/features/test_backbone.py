"""Runs in turn share one backbone, and only where they ask for the same."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.flows.fastflow import untrained
from training.config.run_config import BackboneConfig
from training.features.backbone import BackboneLoader

CPU = torch.device("cpu")
SIZE = (64, 64)


def config(folder: Path, *out_indices: int, seed: int = 0) -> BackboneConfig:
    file = folder / f"{seed}.safetensors"
    save_file(untrained.state(seed), file)
    return BackboneConfig(name=untrained.NAME, out_indices=out_indices, weights=file)


def test_the_same_is_built_once(tmp_path: Path) -> None:
    loader = BackboneLoader(tmp_path)
    first = loader.extractor(config(tmp_path, 1, 2), SIZE, CPU)
    assert loader.extractor(config(tmp_path, 1, 2), SIZE, CPU) is first
    assert loader.weights(config(tmp_path, 1, 2)) is loader.weights(config(tmp_path, 1, 2))
    assert first.weights_sha256 == loader.weights(config(tmp_path, 1, 2)).sha256


def test_other_stages_or_weights_are_another(tmp_path: Path) -> None:
    loader = BackboneLoader(tmp_path)
    first = loader.extractor(config(tmp_path, 1, 2), SIZE, CPU)
    stages = loader.extractor(config(tmp_path, 2), SIZE, CPU)
    assert stages.out_indices == (2,)
    other = loader.extractor(config(tmp_path, 2, seed=1), SIZE, CPU)
    assert other.weights_sha256 != first.weights_sha256
    assert loader.extractor(config(tmp_path, 1, 2), SIZE, CPU) is not first  # one is kept
