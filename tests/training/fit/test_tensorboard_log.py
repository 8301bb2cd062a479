"""TensorBoard logs: scalars of every epoch."""

import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.config.run_config import RunConfig
from training.fit.tensorboard_log import TensorBoardError, TensorBoardLog
from training.run import train
from training.terminal.progress import Silent


def test_every_epoch_is_logged(
    tiny_data: Path, tiny_config: RunConfig, tmp_path: Path, silent: Silent
) -> None:
    fit = tiny_config.fit.model_copy(update={"epochs": 2})
    config = tiny_config.model_copy(update={"fit": fit, "tensorboard": tmp_path / "logs"})
    models, runs = tmp_path / "models", tmp_path / "runs"
    done = train(config, tiny_data, "tiny", models=models, runs=runs, resume=False, progress=silent)
    [folder] = (tmp_path / "logs" / "tiny").iterdir()
    logged = EventAccumulator(str(folder))
    logged.Reload()
    expected = {"nll/fit", "nll/held_out", "learning_rate", "seconds"}
    expected |= {f"nll_scale_{scale}/{part}" for scale in (0, 1) for part in ("fit", "held_out")}
    assert set(logged.Tags()["scalars"]) == expected
    rows = [json.loads(line) for line in (done.bundle / "report/metrics.jsonl").read_text().splitlines()]
    for row in rows:
        [found] = [e.value for e in logged.Scalars("nll_scale_1/fit") if e.step == row["epoch"]]
        assert found == pytest.approx(row["fit_nll"][1])


def test_missing_tensorboard_tells_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TensorBoardError, match="pip install tensorboard"):
        TensorBoardLog(tmp_path)
