"""Reports of settings without effect."""

from pathlib import Path
from typing import Any

import pytest

from training.config.load_config import dump_config, load_config
from training.config.run_config import RunConfig
from training.config.unused_settings import unused_settings

SAID: list[tuple[dict[str, Any], str]] = [
    ({"fit": {"tiles": 4}}, "fit.tiles is 4, but geometry.fit is not tile: it does nothing"),
    (
        {"geometry": {"fit": "pad", "max_tiles": 9}},
        "geometry.max_tiles is 9, but input_size or geometry.fit is set: it does nothing",
    ),
    (
        {"input_size": [256, 256], "geometry": {"max_tiles": 9}},
        "geometry.max_tiles is 9, but input_size or geometry.fit is set: it does nothing",
    ),
    (
        {"fit": {"steps": 100, "epochs": 500}},
        "fit.steps is 100, but fit.epochs is 500, not null: it does nothing",
    ),
    (
        {"normalisation": {"pooling": 1, "pooled": "all"}},
        "normalisation.pooled is all, but normalisation.pooling is 1, which pools none: it does nothing",
    ),
    (
        {"augment": {"copies": 16}},
        "augment.copies is 16, but augment allows no change to make them: it does nothing",
    ),
]


@pytest.mark.parametrize(("settings", "said"), SAID)
def test_unused_setting_is_reported(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    config = RunConfig.model_validate(settings)
    assert unused_settings(config) == [said]
    (tmp_path / "run.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "run.yaml") == config  # as a bundle has it


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fit": {"tiles": 4}, "geometry": {"fit": "tile"}},
        {"augment": {"copies": 16, "degrees": 5}},
        {"fit": {"steps": 100}},
        {"fit": {"epochs": 500}},
        {"normalisation": {"pooling": 5, "pooled": "all"}},
        {"normalisation": {"pooling": 1}},
    ],
)
def test_used_setting_is_not_reported(settings: dict[str, Any]) -> None:
    assert unused_settings(RunConfig.model_validate(settings)) == []
