"""`kill -9` at any moment of a training, then --resume: the weights are those of an undisturbed run."""

import hashlib
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flows.fastflow.bundle.bundle import FLOW, read_manifest, verify
from flows.fastflow.bundle.models_folder import active_version, categories, resolve, versions
from flows.fastflow.detector import Detector
from tests.system.processes import FlowGauge

Moment = Callable[[str], bool]


def killed_when(flowgauge: FlowGauge, command: list[str], moment: Moment, delay: float) -> int:
    """Kill a command some seconds after a moment; return its exit code, 0 if it ended first."""
    log = flowgauge.cwd / "log.txt"
    with log.open("w") as file, flowgauge.start(*command, log=file) as process:
        while process.poll() is None and not moment(log.read_text()):
            time.sleep(0.0005)
        time.sleep(delay)
        process.kill()
    assert process.returncode in (-signal.SIGKILL, 0), log.read_text()
    return process.returncode


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


@pytest.fixture
def command(tiny_data: Path, tiny_yaml: Path) -> list[str]:
    # Long enough for a kill to fall into it.
    options = ["--data", str(tiny_data), "--category", "tiny", "--config", str(tiny_yaml)]
    return ["train", *options, "--epochs", "12"]


def said(text: str) -> Moment:
    return lambda output: text in output


def exists(folder: Path, pattern: str) -> Moment:
    return lambda _: any(folder.glob(pattern))


def test_killed_training_resumes_to_the_same_weights(flowgauge: FlowGauge, command: list[str]) -> None:
    assert check_resumed(flowgauge, command, [(said("epoch   2/12"), 0)]) == 1


@pytest.mark.slow
def test_training_killed_in_any_stage_resumes_to_same_weights(
    flowgauge: FlowGauge, command: list[str]
) -> None:
    models, runs = flowgauge.cwd / "models", flowgauge.cwd / "runs"
    # What is meant is not hit to the millisecond, and delays are drawn anew every time.
    rng = random.Random()
    moments: list[tuple[Moment, float]] = [
        (exists(runs, "features/.*.part/scale_0.npy"), rng.uniform(0, 0.2)),
        (said("fit ..."), rng.uniform(0, 0.5)),
        (said("epoch   2/12"), rng.uniform(0, 0.5)),
        (said("epoch  11/12"), rng.uniform(0, 0.2)),
        (said("calibrate ..."), rng.uniform(0, 0.1)),
        (exists(models, "backbones"), 0),  # its weights are being written
        (exists(models, "tiny"), 0),  # the bundle is being written
    ]
    assert check_resumed(flowgauge, command, moments) >= 5


def check_resumed(flowgauge: FlowGauge, command: list[str], moments: Sequence[tuple[Moment, float]]) -> int:
    """Kill a training at these moments and compare it with an undisturbed one; count kills."""
    flowgauge.run(*command, "--models", "undisturbed/models", "--runs", "undisturbed/runs")
    models, runs = flowgauge.cwd / "models", flowgauge.cwd / "runs"
    codes = []
    for moment, delay in moments:
        codes.append(killed_when(flowgauge, [*command, "--resume"], moment, delay))
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
    return codes.count(-signal.SIGKILL)


def sha256(bundle: Path) -> str:
    return hashlib.sha256((bundle / FLOW).read_bytes()).hexdigest()
