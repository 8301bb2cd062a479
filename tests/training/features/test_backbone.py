"""Sharing of one backbone between successive runs."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.flows.fastflow import untrained
from training.config.run_config import BackboneConfig, ConfigError
from training.features.backbone import BackboneLoader, require_whole_positions

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


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (
            (300, 300),
            r"300 x 300: sides must be multiples of 32, .* of lite; set input_size: .* use 288 or 320$",
        ),
        ((256, 225), r"256 x 225: .*: instead of 225 use 224 or 256$"),
        ((45, 4090), r"instead of 45 use 32 or 64; instead of 4090 use 4064 or 4096$"),
    ],
)
def test_size_not_divisible_by_strides_is_refused(size: tuple[int, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        require_whole_positions(size, (8, 16, 32), "lite")
    require_whole_positions((288, 4096), (8, 16, 32), "lite")
