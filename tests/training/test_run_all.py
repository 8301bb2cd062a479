"""Training of several categories: isolated failures, and the summary."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import activate, active_version
from tests.flows.fastflow import untrained
from training.config.run_config import RunConfig
from training.run_all import SUMMARY, CategoryResult, train_each
from training.terminal.progress import Silent


class Said(Silent):
    """A progress that keeps its lines, and may be interrupted at one of them."""

    def __init__(self, interrupted_at: str = "") -> None:
        self.lines: list[str] = []
        self.interrupted_at = interrupted_at

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self.interrupted_at and line.startswith(self.interrupted_at):
            raise KeyboardInterrupt

    def stage(self, title: str, total: int) -> AbstractContextManager[Callable[[float], None]]:
        self.lines.append(f"{title} ...")
        return super().stage(title, total)


@pytest.fixture(scope="module")
def config(tiny_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    weights = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(untrained.state(), weights)
    backbone = {"name": untrained.NAME, "out_indices": [1], "weights": weights}
    fit, calibration = {"epochs": 1, "threads": 1}, {"fraction": 0.3, "target_fpr": 0.3}
    changes = {"backbone": backbone, "flow": {"steps": 2}, "fit": fit, "calibration": calibration}
    return RunConfig.model_validate({**tiny_config.model_dump(), **changes})


@pytest.fixture
def data(tmp_path: Path, tiny_data: Path) -> Path:
    """Three categories of which the second has an image that is cut off."""
    root = tmp_path / "data"
    images = sorted((tiny_data / "tiny/train/good").iterdir())
    for number, name in enumerate("abc"):
        good = root / name / "train" / "good"
        good.mkdir(parents=True)
        for path in images[10 * number : 10 * number + 10]:
            shutil.copy(path, good)
    broken = root / "b" / "train" / "good" / "014.png"
    broken.write_bytes(broken.read_bytes()[:300])
    return root


def run(data: Path, configs: dict[str, RunConfig], **changes: Any) -> list[CategoryResult]:
    places = {"models": data.parent / "models", "runs": data.parent / "runs"}
    return train_each(configs, data, **{"resume": False, "progress": Said(), **places, **changes})


def summary(data: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((data.parent / "runs" / SUMMARY).read_text())
    return found


def test_one_that_fails_does_not_stop_the_others(data: Path, config: RunConfig) -> None:
    said = Said()
    results = run(data, dict.fromkeys("abc", config), progress=said)
    assert [r.status for r in results] == ["trained", "failed", "trained"]
    failed = results[1]
    assert failed.reason is not None
    assert "014.png" in failed.reason
    assert (failed.version, failed.threshold, failed.traceback) == (None, None, None)
    for result in (results[0], results[2]):
        manifest = read_manifest(data.parent / "models" / result.category / str(result.version))
        assert result.version == active_version(data.parent / "models", result.category)
        assert result.threshold == manifest.thresholds["float32"].reject
        assert result.certified is manifest.thresholds["float32"].certified is True
        assert result.pictures == 10
        assert result.held_out_nll == manifest.metrics["held_out_nll"]
        assert result.seconds is not None
        assert result.seconds > 0
    assert active_version(data.parent / "models", "b") is None
    assert [line for line in said.lines if line.startswith("[")] == ["[1/3] a", "[2/3] b", "[3/3] c"]
    assert any(line.startswith("b failed: ") and "014.png" in line for line in said.lines)
    assert [CategoryResult(**row) for row in summary(data)] == results


def test_resume_passes_over_what_is_done_and_tries_the_rest(
    data: Path, config: RunConfig, tiny_data: Path
) -> None:
    first = run(data, dict.fromkeys("abc", config))
    shutil.copy(tiny_data / "tiny/train/good/014.png", data / "b/train/good/014.png")
    said = Said()
    results = run(data, dict.fromkeys("abc", config), resume=True, progress=said)
    assert [r.status for r in results] == ["reused", "trained", "reused"]
    assert [results[i].version for i in (0, 2)] == [first[i].version for i in (0, 2)]
    assert said.lines.count("fit ...") == 1


def test_resume_leaves_what_serves(data: Path, config: RunConfig) -> None:
    [first] = run(data, {"a": config})
    models = data.parent / "models"
    shutil.copytree(models / "a" / str(first.version), models / "a" / "other")
    activate(models, "a", "other")
    said = Said()
    [again] = run(data, {"a": config}, resume=True, progress=said)
    assert (again.status, again.version) == ("reused", first.version)
    assert active_version(models, "a") == "other"
    [told] = [line for line in said.lines if line.startswith("other stays the active version")]
    assert told.endswith(f": flowgauge models activate a {first.version}")


def test_interrupted_no_further_one_is_begun(data: Path, config: RunConfig) -> None:
    said = Said("backbone")
    with pytest.raises(KeyboardInterrupt):
        run(data, dict.fromkeys("abc", config), progress=said)
    assert "[2/3] b" not in said.lines
    assert [row["status"] for row in summary(data)] == ["begun", "not begun", "not begun"]
    assert not (data.parent / "models").exists()
