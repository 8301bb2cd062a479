"""Ten categories from one command, in real processes: one is corrupt, the others are not the worse for it."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from flows.fastflow.bundle import verify
from flows.fastflow.models_folder import active_version, categories
from tests.system.processes import FlowGauge

CORRUPT = "part4"


def lay_out(root: Path, pictures: list[Path], count: int) -> Path:
    """So many categories, each with eight of the pictures; one picture of the corrupt one is cut off."""
    for number in range(count):
        good = root / f"part{number}" / "train" / "good"
        good.mkdir(parents=True)
        for path in pictures[number : number + 8]:
            shutil.copy(path, good)
    broken = next(iter(sorted((root / CORRUPT / "train" / "good").iterdir())))
    broken.write_bytes(broken.read_bytes()[:200])
    return root


@pytest.fixture
def pictures(tiny_data: Path) -> list[Path]:
    return sorted((tiny_data / "tiny/train/good").iterdir())


@pytest.mark.slow
def test_ten_categories_of_which_one_is_corrupt(
    flowgauge: FlowGauge, pictures: list[Path], tiny_yaml: Path
) -> None:
    data = lay_out(flowgauge.cwd / "data", pictures, 10)
    command = ("train", "--data", data, "--all", "--config", tiny_yaml, "--epochs", "1")
    with flowgauge.start(*command) as process:
        said, _ = process.communicate(timeout=540)
    assert process.returncode == 1, said
    models = flowgauge.cwd / "models"
    good = [f"part{number}" for number in range(10) if f"part{number}" != CORRUPT]
    assert categories(models) == good
    for name in good:
        verify(models / name / str(active_version(models, name)))
    assert "[10/10] part9" in said
    lines = said.splitlines()
    table = lines[-12:-1]
    assert table[0].split()[:3] == ["category", "pictures", "seconds"]
    assert [line.split()[0] for line in table[1:]] == [f"part{number}" for number in range(10)]
    assert [line for line in table[1:] if "failed: " in line] == [table[5]]
    summary = json.loads((flowgauge.cwd / "runs" / "summary.json").read_text())
    assert [row["status"] for row in summary] == ["failed" if i == 4 else "trained" for i in range(10)]
    assert "training pictures of part4 cannot be decoded" in summary[4]["reason"]
    assert "train/good/004.png" in summary[4]["reason"]

    # Mended, --resume learns the one that is missing and passes over the rest.
    shutil.copy(pictures[4], data / CORRUPT / "train" / "good")
    flowgauge.run(*command, "--resume")
    summary = json.loads((flowgauge.cwd / "runs" / "summary.json").read_text())
    assert [row["status"] for row in summary] == ["trained" if i == 4 else "reused" for i in range(10)]
    assert len(categories(models)) == 10


@pytest.mark.slow
def test_ctrl_c_begins_no_further_category(
    flowgauge: FlowGauge, pictures: list[Path], tiny_yaml: Path
) -> None:
    data = lay_out(flowgauge.cwd / "data", pictures, 5)
    options: list[str | Path] = [
        "--category",
        "part1",
        "--category",
        "part2",
        "--config",
        tiny_yaml,
        "--epochs",
        "500",
    ]
    with flowgauge.start("train", "--data", data, *options) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("epoch   2/500"):
                process.send_signal(signal.SIGINT)
                break
        rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "[1/2] part1" in said
    assert "part2" not in rest
    assert "--resume continues" in rest
    assert not (flowgauge.cwd / "models").exists()
    summary = json.loads((flowgauge.cwd / "runs" / "summary.json").read_text())
    assert [row["status"] for row in summary] == ["begun", "not begun"]
