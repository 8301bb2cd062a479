"""Identity of a run, and the files in its folder."""

from pathlib import Path
from typing import Any

import pytest
import torch

from training.config.run_config import RunConfig
from training.fit.checkpoint import CHECKPOINT
from training.fit.epoch_metrics import METRICS
from training.fit.run_folder import (
    CONFIG,
    begin_fit,
    describe_discarded,
    epochs_done,
    find_published,
    finish,
    identify,
)

CPU = torch.device("cpu")


def identity(hashes: tuple[str, ...] = ("a", "b"), weights: str = "w", **settings: Any) -> Any:
    return identify(RunConfig.model_validate(settings), hashes, weights, CPU)


@pytest.mark.parametrize(
    "settings",
    [{"backbone": {"weights": "elsewhere.pth"}}, {"device": "cpu"}, {"feature_cache": {"max_gib": 1}}],
    ids=str,
)
def test_irrelevant_settings_keep_the_run(settings: dict[str, Any]) -> None:
    assert identity(**settings) == identity()


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"fit": {"threads": 1}},
        {"fit": {"epochs": 3}},
        {"fit": {"stopping": {"patience": 3}}},
        {"augment": {"hflip": True}},
        {"calibration": {"fraction": 0.5}},
        {"hashes": ("a",)},
        {"weights": "v"},
    ],
    ids=str,
)
def test_settings_of_the_fit_make_another_run(settings: dict[str, Any]) -> None:
    assert identity(**settings).fit != identity().fit


def test_other_parts_make_another_run() -> None:
    runs = [identify(RunConfig(), ("a", "b", "c"), "w", CPU, parts) for parts in (None, [0, 0, 1], [0, 1, 1])]
    assert len({run.fit for run in runs}) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"calibration": {"target_fpr": 0.5}},
        {"score": {"top_fraction": 0.5}},
        {"score": {"gaussian": 0.5}},
        {"calibration": {"engines": ["float32", "bfloat16"]}},
    ],
    ids=str,
)
def test_settings_after_the_fit_change_only_the_bundle(settings: dict[str, Any]) -> None:
    assert identity(**settings).fit == identity().fit
    assert identity(**settings).bundle != identity().bundle


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".a1b2.part").mkdir()
    (tmp_path / ".a1b2.part" / CHECKPOINT).write_bytes(b"half")
    begin_fit(tmp_path, RunConfig(), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG]


def test_epochs_done_are_those_of_a_checkpoint(tmp_path: Path) -> None:
    assert epochs_done(tmp_path) == 0
    (tmp_path / METRICS).write_text("{}\n{}\n")
    assert epochs_done(tmp_path) == 0
    (tmp_path / CHECKPOINT).touch()
    assert epochs_done(tmp_path) == 2
    begin_fit(tmp_path, RunConfig(), resume=True)
    assert epochs_done(tmp_path) == 2
    (tmp_path / METRICS).write_bytes(b"\xff\xfe")
    assert epochs_done(tmp_path) == 0


def test_discarded_run_is_described(tmp_path: Path) -> None:
    assert describe_discarded(tmp_path, finished=False) is None
    (tmp_path / METRICS).write_text("{}\n")
    (tmp_path / CHECKPOINT).touch()
    said = "an earlier run with these settings and images {}; --resume would {}, this one begins anew"
    assert describe_discarded(tmp_path, finished=False) == said.format("has made 1 epoch", "go on from there")
    (tmp_path / CHECKPOINT).unlink()
    assert describe_discarded(tmp_path, finished=True) == said.format("is finished", "take its model")


def test_without_its_bundle_a_finished_run_is_not_reused(tmp_path: Path) -> None:
    finish(tmp_path, identity(), "20260101T000000-abcdef")
    assert find_published(tmp_path, identity(), tmp_path / "models", "part") is None
