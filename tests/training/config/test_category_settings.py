"""Settings of one category over the general ones, with presets and backbones."""

from typing import Any

import pytest

from flows.fastflow.backbones.presets import PresetError
from training.config.category_settings import settings_of_category
from training.config.presets import apply_preset
from training.config.run_config import RunConfig

VIT = "vit_small_patch16_dinov3"
STAGES = {"name": "tf_efficientnet_lite1", "out_indices": [2, 3]}


def config(general: dict[str, Any], own: dict[str, Any], preset: str | None = None) -> RunConfig:
    return RunConfig.model_validate(apply_preset(settings_of_category(general, own, preset), preset))


def test_its_preset_wins_over_the_settings_of_all() -> None:
    general = {"backbone": STAGES, "input_size": [256, 256], "flow": {"steps": 3, "clamp": 1.5}, "seed": 3}
    found = config(general, {"preset": VIT})
    assert (found.backbone.name, found.backbone.out_indices, found.input_size) == (VIT, (7,), (384, 384))
    assert (found.flow.steps, found.flow.hidden_ratio) == (8, 0.5)
    assert (found.flow.clamp, found.seed) == (1.5, 3)  # of which the preset says nothing


def test_its_own_settings_win_over_its_preset() -> None:
    own = {"preset": VIT, "backbone": {"blocks": [3, 7]}, "flow": {"steps": 2}, "input_size": [192, 192]}
    found = config({"backbone": STAGES, "flow": {"steps": 3}}, own)
    assert (found.backbone.name, found.backbone.out_indices) == (VIT, (3, 7))
    assert (found.flow.steps, found.flow.hidden_ratio, found.input_size) == (2, 0.5, (192, 192))


def test_stages_of_another_backbone_are_not_its_own() -> None:
    with pytest.raises(PresetError, match=r"backbone\.name is 'resnet18': say which of its feature maps"):
        config({"backbone": STAGES}, {"backbone": {"name": "resnet18"}})
    found = config({"backbone": STAGES}, {"backbone": {"name": "tf_efficientnet_lite0"}})
    assert found.backbone.out_indices == RunConfig().backbone.out_indices


def test_weights_of_another_backbone_are_not_its_own() -> None:
    general = {"backbone": {"weights": "r18.pth", "batch_size": 3}, "preset": "resnet18"}
    assert config(general, {"preset": VIT}).backbone.weights is None
    tagged = config(general, {"backbone": {"name": "resnet18.tv_in1k", "out_indices": [1]}})
    assert (tagged.backbone.weights, tagged.backbone.batch_size) == (None, 3)
    assert str(config(general, {"backbone": {"batch_size": 4}}).backbone.weights) == "r18.pth"
    own = {"backbone": {"name": "resnet50", "out_indices": [1], "weights": "r50.pth"}}
    assert str(config(general, own).backbone.weights) == "r50.pth"
