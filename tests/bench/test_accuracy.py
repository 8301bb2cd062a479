"""Tests of the accuracy benchmark."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.accuracy import FIGURES, table
from training.config.load_config import dump_config
from training.config.run_config import RunConfig
from training.evaluation.summary import AVERAGED


def summary(value: float | None) -> dict[str, Any]:
    return dict.fromkeys(FIGURES, value)


def test_summaries_have_every_figure() -> None:
    assert set(FIGURES) <= {*AVERAGED, "milliseconds"}


def test_table_has_a_row_per_model_and_figure() -> None:
    peer = {"model": "PaDiM", **summary(0.25)}
    found = {"bottle": [{**summary(0.5), "comparison": [peer]}, summary(1.0)], "cell": [summary(None)]}
    rows = table("lite", found).rows
    assert ["FlowGauge", "AUPIMO", "0.7500 ± 0.2500", "-", "0.7500"] in rows
    assert ["PaDiM", "AUPIMO", "0.2500", "-", "0.2500"] in rows
    assert len(rows) == 2 * len(FIGURES)


@pytest.mark.slow
def test_benchmark_trains_and_evaluates(tiny_data: Path, tiny_config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(dump_config(tiny_config))
    options = ["--seeds", "0", "--config", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "bench.accuracy", "--set", str(tiny_data), "tiny", *options]
    for starter in ([], ["--starter", "--images", "10"]):
        subprocess.run([*command, *starter], check=True, capture_output=True)
        assert "| FlowGauge | image AUROC |" in (tmp_path / "out" / "accuracy.md").read_text()
    [learned] = (tmp_path / "out").glob("*-starter-10/tiny/0/data/tiny/good")
    assert len(list(learned.iterdir())) == 10
