"""What TensorBoard shows of a run: scalars of every epoch."""

import json
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.flows.fastflow import untrained
from training.config import RunConfig
from training.progress import Silent
from training.run import train
from training.tensorboard_log import TensorBoardError, TensorBoardLog


def test_every_epoch_is_logged(tiny_data: Path, tmp_path: Path) -> None:
    save_file(untrained.state(), tmp_path / "w.safetensors")
    config = RunConfig.model_validate(
        {
            "device": "cpu",
            "input_size": [64, 64],
            "backbone": {
                "name": untrained.NAME,
                "out_indices": [1, 2],
                "weights": tmp_path / "w.safetensors",
            },
            "flow": {"steps": 1},
            "fit": {"epochs": 2, "threads": 1},
            "tensorboard": tmp_path / "logs",
        }
    )
    bundle = train(
        config,
        tiny_data,
        "tiny",
        models=tmp_path / "models",
        runs=tmp_path / "runs",
        resume=False,
        progress=Silent(),
    ).bundle
    [folder] = (tmp_path / "logs" / "tiny").iterdir()
    logged = EventAccumulator(str(folder))
    logged.Reload()
    expected = {"nll/fit", "nll/held_out", "learning_rate", "seconds"}
    expected |= {f"nll_scale_{scale}/{part}" for scale in (0, 1) for part in ("fit", "held_out")}
    assert set(logged.Tags()["scalars"]) == expected
    rows = [json.loads(line) for line in (bundle / "report/metrics.jsonl").read_text().splitlines()]
    for row in rows:
        [found] = [e.value for e in logged.Scalars("nll_scale_1/fit") if e.step == row["epoch"]]
        assert found == pytest.approx(row["fit_nll"][1])


def test_without_the_package_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TensorBoardError, match="pip install tensorboard"):
        TensorBoardLog(tmp_path)
