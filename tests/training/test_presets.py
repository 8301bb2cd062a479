"""A preset under a run's own settings."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.fastflow.presets import PAPER, PRESETS
from tests.training.run_yaml import write
from training.config import ConfigError, RunConfig, dump_config, load_config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_run(name: str, tmp_path: Path) -> None:
    """By the command line and by the file; what it does not say is as ever."""
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


def test_the_papers_training_is_complete() -> None:
    paper = load_config(None, preset="fastflow-paper/resnet18")
    fit = paper.fit
    assert (fit.epochs, fit.batch_size, fit.learning_rate, fit.weight_decay) == (500, 32, 1e-3, 1e-5)
    assert (fit.schedule, fit.precision, fit.stopping) == ("constant", "float32", None)
    assert [fit.epochs_for(pictures) for pictures in (3, 10_000)] == [500, 500]
    assert (paper.score.gaussian, paper.score.picture) == (0, 0)


@pytest.mark.parametrize("name", [name.removeprefix(PAPER) for name in PRESETS if name.startswith(PAPER)])
def test_a_published_architecture_has_our_training_at_the_rate_of_its_kernels(name: str) -> None:
    ours = load_config(None, preset=name)
    assert ours.fit == RunConfig().fit.model_copy(update={"learning_rate": 2e-3})
    assert ours.normalisation == RunConfig().normalisation
    assert ours.score == RunConfig().score


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_that_says_how_wide_conditioners_are_is_not_limited(name: str) -> None:
    flow = load_config(None, preset=name).flow
    says = "hidden_ratio" in PRESETS[name].sections.get("flow", {})
    assert flow.hidden_limit == (None if says else RunConfig().flow.hidden_limit)


def test_what_the_file_says_wins_field_by_field(tmp_path: Path) -> None:
    text = "preset: fastflow-paper/resnet18\nflow: {steps: 4}\nfit: {epochs: 3}\ninput_size: [128, 128]\n"
    found = load_config(write(tmp_path, text), epochs=2)
    assert (found.flow.steps, found.flow.kernels) == (4, "3")
    assert (found.fit.epochs, found.fit.batch_size) == (
        2,
        32,
    )  # the command line over the file over the preset
    assert found.input_size == (128, 128)
    assert found.backbone.name == "resnet18"


def test_the_command_lines_preset_goes_before_the_files(tmp_path: Path) -> None:
    found = load_config(write(tmp_path, "preset: resnet18\nseed: 3"), preset="wide_resnet50_2")
    assert (found.backbone.name, found.seed, found.flow.kernels) == ("wide_resnet50_2", 3, "3-1")


def test_what_is_dumped_is_the_whole_run_and_names_no_preset(tmp_path: Path) -> None:
    config = load_config(None, preset="fastflow-paper/cait_m48_448")
    text = dump_config(config)
    assert "preset" not in yaml.safe_load(text)
    assert load_config(write(tmp_path, text)) == config


@pytest.mark.parametrize("key", ["out_indices", "blocks"])
def test_any_other_model_of_timm_says_its_stages_or_blocks(tmp_path: Path, key: str) -> None:
    found = load_config(write(tmp_path, f"backbone: {{name: vit_tiny_patch16_224, {key}: [3, 7]}}"))
    assert (found.backbone.name, found.backbone.out_indices) == ("vit_tiny_patch16_224", (3, 7))


def test_blocks_replace_those_of_a_preset(tmp_path: Path) -> None:
    found = load_config(write(tmp_path, "preset: cait_m48_448\nbackbone: {blocks: [20, 40]}"))
    assert (found.backbone.name, found.backbone.out_indices) == ("cait_m48_448", (20, 40))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"preset": "resnet81"}, "there is no preset 'resnet81'; close names: resnet18"),
    ({"preset": 18}, "preset must be a name; got 18"),
    ({"preset": ["resnet18"]}, "preset must be a name"),
    ({"backbone": {"name": "resnet50"}}, "backbone.name is 'resnet50': say which of its feature maps"),
    ({"preset": "resnet18", "backbone": {"name": "resnet50"}}, "backbone.name is 'resnet50': say which"),
    ({"backbone": {"blocks": [1], "out_indices": [1]}}, "another name for backbone.out_indices; give one"),
    ({"preset": "resnet18", "flow": 3}, "flow: Input should be a valid dictionary"),
    ({"preset": "resnet18", "backbone": None}, "backbone: Input should be a valid dictionary"),
    ({"preset": "resnet18", "backbone": {"blocks": []}}, "backbone.out_indices: "),
    ({"preset": "resnet18", "flow": {"step": 3}}, "flow.step: there is no such setting; did you mean steps?"),
]


@pytest.mark.parametrize(("data", "said"), WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, yaml.safe_dump(data)))
    assert said in str(caught.value)
    assert str(tmp_path / "run.yaml") in str(caught.value)


def test_the_default_backbone_needs_no_stages(tmp_path: Path) -> None:
    found = load_config(write(tmp_path, "backbone: {name: tf_efficientnet_lite0, batch_size: 4}"))
    assert found.backbone.out_indices == RunConfig().backbone.out_indices
