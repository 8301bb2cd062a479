"""TensorBoard: what is written can be read back by TensorBoard itself."""

import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flows.fastflow.bundle import read_manifest
from flows.fastflow.detector import Detector
from tests.flows.fastflow import untrained
from tests.training.pins import pins
from training.calibrate import calibrate
from training.config import RunConfig
from training.datasets.sample import DatasetError
from training.loop import EpochMetrics
from training.progress import Silent
from training.run import Outcome, train
from training.tensorboard_log import TensorBoardError, TensorBoardLog


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("tensorboard")
    save_file(untrained.state(), folder / "w.safetensors")
    return RunConfig.model_validate(
        {
            "device": "cpu",
            "input_size": [64, 64],
            "backbone": {"name": untrained.NAME, "out_indices": [1, 2], "weights": folder / "w.safetensors"},
            "flow": {"steps": 2},
            "fit": {"epochs": 3},
            "calibration": {"fraction": 0.3},
            "tensorboard": folder / "logs",
        }
    )


def run(config: RunConfig, data: Path, root: Path, *, resume: bool = False) -> Outcome:
    return train(
        config,
        data,
        "tiny",
        models=root / "models",
        runs=root / "runs",
        resume=resume,
        progress=Silent(),
        backbones=None,
    )


@pytest.fixture(scope="module")
def outcome(config: RunConfig, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(config, tiny_data, tmp_path_factory.mktemp("run"))


def read(folder: Path) -> Any:
    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


@pytest.fixture
def logged(config: RunConfig, outcome: Outcome) -> Any:
    assert config.tensorboard is not None
    [folder] = (config.tensorboard / "tiny").iterdir()
    return read(folder)


def test_losses_rate_and_seconds_of_every_epoch(logged: Any, outcome: Outcome) -> None:
    tags = logged.Tags()["scalars"]
    expected = {"nll/fit", "nll/held_out", "learning_rate", "seconds", "held_out/threshold"}
    expected |= {f"nll_scale_{scale}/{part}" for scale in (0, 1) for part in ("fit", "held_out")}
    assert expected <= set(tags)
    for tag in expected - {"held_out/threshold"}:
        assert [event.step for event in logged.Scalars(tag)] == [1, 2, 3]
    manifest = read_manifest(outcome.bundle)
    assert logged.Scalars("nll/held_out")[-1].value == pytest.approx(manifest.metrics["held_out_nll"])
    assert logged.Scalars("nll/fit")[-1].value == pytest.approx(manifest.metrics["fit_nll"])
    [threshold] = logged.Scalars("held_out/threshold")
    assert threshold.value == pytest.approx(manifest.thresholds["float32"].reject)


def test_held_out_scores_and_heatmaps_of_good_pictures(logged: Any) -> None:
    [histogram] = logged.Histograms("held_out/score")
    assert histogram.histogram_value.num == 10
    images = logged.Tags()["images"]
    assert images == [f"held_out/good_{i:04}" for i in (0, 3, 6, 9)]
    # A picture and beside it the same with its heatmap.
    assert {(logged.Images(tag)[0].width, logged.Images(tag)[0].height) for tag in images} == {(128, 64)}


def test_a_picture_that_was_changed_since_it_calibrated_is_not_shown(
    config: RunConfig, outcome: Outcome, tiny_images: dict[str, list[bytes]], tmp_path: Path
) -> None:
    path = tmp_path / "good.png"
    path.write_bytes(tiny_images["good"][0])
    pictures = pins([path])
    scorer = Detector.load(outcome.bundle, device="cpu").scorer
    found = calibrate(scorer, pictures, 0.5, lambda _: None, 16)
    path.write_bytes(tiny_images["good"][1])
    with (
        TensorBoardLog(tmp_path / "log", config) as log,
        pytest.raises(DatasetError, match=r"good\.png was changed"),
    ):
        log.end(found, scorer, pictures, {})


def test_settings_can_be_read_and_compared(logged: Any) -> None:
    [text] = logged.Tensors("config/text_summary")
    assert b"out_indices" in text.tensor_proto.string_val[0]
    assert any(tag.startswith("_hparams_") for tag in logged.summary_metadata)


def test_the_log_is_not_part_of_what_a_run_is(config: RunConfig, outcome: Outcome, tiny_data: Path) -> None:
    """Looking at a run does not make it another one."""
    root = outcome.bundle.parents[2]
    unlogged = config.model_copy(update={"tensorboard": None})
    assert run(unlogged, tiny_data, root, resume=True).reused


def test_a_resumed_run_shows_every_epoch_once(config: RunConfig, tmp_path: Path) -> None:
    row = EpochMetrics(epoch=1, fit_nll=[1.0], held_out_nll=[1.0], learning_rate=0.1, seconds=1.0)
    for _ in range(2):
        with TensorBoardLog(tmp_path, config) as log:
            log.epoch(row)
    assert [event.step for event in read(tmp_path).Scalars("nll/fit")] == [1]


def test_a_missing_package_is_told_before_the_work(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(TensorBoardError, match=r"pip install tensorboard"):
        TensorBoardLog(tmp_path / "log", config)
    assert not (tmp_path / "log").exists()
