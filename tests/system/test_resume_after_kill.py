"""`kill -9` of a training, then --resume: the weights are those of an undisturbed run."""

import hashlib
import signal
import time
from pathlib import Path

import pytest

from flows.fastflow.bundle.bundle import FLOW, read_manifest, verify
from flows.fastflow.bundle.models_folder import active_version, categories, resolve, versions
from flows.fastflow.detector import Detector
from tests.system.processes import FlowGauge


def kill_after(flowgauge: FlowGauge, command: list[str], said: str) -> None:
    """Kill a command once it has said a text."""
    log = flowgauge.cwd / "log.txt"
    with log.open("w") as file, flowgauge.start(*command, log=file) as process:
        while process.poll() is None and said not in log.read_text():
            time.sleep(0.0005)
        process.kill()
    assert process.returncode == -signal.SIGKILL, log.read_text()


def expect_nothing_half_written(models: Path) -> None:
    seen = {p.name for p in models.glob("[!.]*")}
    assert seen <= {"backbones", "tiny"}
    for file in models.glob("backbones/[!.]*"):
        assert file.suffix == ".safetensors"
    for version in versions(models, "tiny"):
        verify(models / "tiny" / version)
    assert {p.name for p in models.glob("tiny/[!.]*")} <= {*versions(models, "tiny"), "active"}
    active = active_version(models, "tiny")
    assert active is None or active in versions(models, "tiny")


@pytest.mark.slow  # tests/training/test_run.py ends runs in every stage
def test_killed_training_resumes_to_the_same_weights(
    flowgauge: FlowGauge, tiny_data: Path, tiny_yaml: Path
) -> None:
    # Long enough for a kill to fall into it.
    command = ["train", "--data", str(tiny_data), "--category", "tiny", "--config", str(tiny_yaml)]
    command += ["--epochs", "12"]
    flowgauge.run(*command, "--models", "undisturbed/models", "--runs", "undisturbed/runs")
    models, runs = flowgauge.cwd / "models", flowgauge.cwd / "runs"
    kill_after(flowgauge, [*command, "--resume"], "epoch 2 of 12")
    expect_nothing_half_written(models)

    flowgauge.run(*command, "--resume")
    expect_nothing_half_written(models)
    assert categories(models) == ["tiny"]
    bundle = resolve(models, "tiny")
    undisturbed = resolve(flowgauge.cwd / "undisturbed/models", "tiny")
    for version in versions(models, "tiny"):
        assert sha256(models / "tiny" / version) == sha256(undisturbed)
    own = {"version", "created", "files"}
    ours, theirs = (read_manifest(one).model_dump(exclude=own) for one in (bundle, undisturbed))
    assert ours == theirs
    Detector.load(bundle, device="cpu")
    lines = (bundle / "report/metrics.jsonl").read_text().splitlines()
    assert [f'"epoch": {n},' in line for n, line in enumerate(lines, 1)] == [True] * 12
    # What killed runs left of the features, which may be large, is gone.
    assert list(runs.glob("features/.*")) == []


def sha256(bundle: Path) -> str:
    return hashlib.sha256((bundle / FLOW).read_bytes()).hexdigest()
