"""The published recipe for other backbones: that of the presets, for a run of `bench.accuracy`."""

from pathlib import Path

import yaml

from bench import accuracy
from flows.fastflow.presets import PRESETS
from training.config import load_config

RECIPE = Path(accuracy.__file__).with_name("published_recipe.yaml")


def test_it_is_that_of_a_preset_of_the_paper() -> None:
    assert yaml.safe_load(RECIPE.read_text()) == PRESETS["fastflow-paper/wide_resnet50_2"].sections


def test_it_goes_over_a_small_backbone_of_ours() -> None:
    config = load_config(RECIPE, preset="tf_efficientnet_lite0")
    assert config.backbone.name == "tf_efficientnet_lite0"
    assert (config.fit.epochs, config.fit.precision, config.flow.kernels) == (500, "float32", "3-1")
    assert (config.normalisation.mode, config.score.gaussian, config.score.picture) == ("layer", 0.0, 0.0)
