"""Presets under a run's own settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.fastflow.backbones.presets import PAPER, PRESETS
from tests.training.run_yaml import write
from training.config.load_config import load_config
from training.config.run_config import ConfigError, RunConfig


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_a_run(name: str, tmp_path: Path) -> None:
    found = load_config(None, preset=name)
    assert found == load_config(write(tmp_path, f"preset: {name}"))
    dumped = found.model_dump(mode="json")
    settings = PRESETS[name].settings()
    for section, fields in settings.items():
        if isinstance(fields, dict):
            assert {key: dumped[section][key] for key in fields} == fields
        else:
            assert dumped[section] == fields
    assert (found.seed, found.calibration) == (RunConfig().seed, RunConfig().calibration)
    assert (found.score == RunConfig().score) == (not name.startswith(PAPER))


def test_file_overrides_the_preset_by_field(tmp_path: Path) -> None:
    text = "preset: fastflow-paper/resnet18\nflow: {steps: 4}\nfit: {epochs: 3}\ninput_size: [128, 128]\n"
    found = load_config(write(tmp_path, text), epochs=2)
    assert (found.flow.steps, found.flow.kernels) == (4, "3")
    # The command line over the file over the preset.
    assert (found.fit.epochs, found.fit.batch_size) == (2, 32)
    assert found.input_size == (128, 128)
    assert found.backbone.name == "resnet18"


def test_preset_option_overrides_the_file(tmp_path: Path) -> None:
    found = load_config(write(tmp_path, "preset: resnet18\nseed: 3"), preset="wide_resnet50_2")
    assert (found.backbone.name, found.seed, found.flow.kernels) == ("wide_resnet50_2", 3, "3-1")


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("backbone: {name: vit_tiny_patch16_224, out_indices: [3, 7]}", (3, 7)),
        ("backbone: {name: vit_tiny_patch16_224, blocks: [3, 7]}", (3, 7)),
        ("preset: cait_m48_448\nbackbone: {blocks: [20, 40]}", (20, 40)),
    ],
)
def test_stages_and_blocks_are_alternative_names(tmp_path: Path, text: str, stages: tuple[int, ...]) -> None:
    assert load_config(write(tmp_path, text)).backbone.out_indices == stages


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"preset": "resnet81"}, "there is no preset 'resnet81'; close names: resnet18"),
    ({"preset": 18}, "preset must be a name; got 18"),
    ({"backbone": {"name": "resnet50"}}, "backbone.name is 'resnet50': say which of its feature maps"),
    ({"preset": "resnet18", "backbone": {"name": "resnet50"}}, "backbone.name is 'resnet50': say which"),
    ({"backbone": {"blocks": [1], "out_indices": [1]}}, "another name for backbone.out_indices; give one"),
    ({"preset": "resnet18", "flow": 3}, "flow: Input should be a valid dictionary"),
    ({"preset": "resnet18", "backbone": {"blocks": []}}, "backbone.out_indices: "),
    ({"preset": "resnet18", "flow": {"step": 3}}, "flow.step: there is no such setting; did you mean steps?"),
]


@pytest.mark.parametrize(("data", "said"), WRONG)
def test_wrong_value_is_named(tmp_path: Path, data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, yaml.safe_dump(data)))
    assert said in str(caught.value)
    assert str(tmp_path / "run.yaml") in str(caught.value)
