"""Command output that the guides quote, against what the commands print."""

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import flowgauge
from tests.app.support.calibrations import good_images
from training.config.load_config import dump_config
from training.config.run_config import RunConfig
from training.data.check.findings import TITLES

GUIDES = Path(__file__).parents[2] / "docs" / "how-to"


def quoted(guide: str, start: str) -> list[str]:
    """Return the lines of the text block of a guide whose first line contains `start`."""
    blocks = re.findall(r"```text\n(.*?)```", (GUIDES / guide).read_text(), re.DOTALL)
    [block] = [block for block in blocks if start in block.split("\n")[0]]
    return [line for line in block.splitlines() if line != "..."]


def pattern(line: str) -> str:
    """Return a line with its paths, categories, times and numbers replaced by placeholders."""
    for found, placeholder in (
        (r"\S+\.(png|jpg)", "FILE"),
        (r"\S*/[^\s,]*[a-z][^\s,]*", "PATH"),
        (r"\bof (bottle|tiny)\b", "of CATEGORY"),
        (r"station \S+:", "station NAME:"),
        (r"\([0-9a-f]{12}\)", "(DIGEST)"),
        (r"(\d+ min )?[\d.]+ s\b|\d+ min\b", "TIME"),
        (r"[-+]?\d[\d.]*", "N"),
        (r"N( +N)+", "N"),
    ):
        line = re.sub(found, placeholder, line)
    return line


def printed(*arguments: str | Path) -> list[str]:
    result = CliRunner().invoke(flowgauge.app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def assert_quoted(lines: Iterable[str], output: Iterable[str]) -> None:
    """Require that each quoted line begins a printed one, up to where the guide shortens it by ' ...'."""
    patterns = [pattern(line) for line in output]
    for line in lines:
        for piece in line.split(" ..."):
            shortened = pattern(piece.strip().rstrip(","))
            assert any(shortened in one for one in patterns), f"{line!r} is not among {patterns}"


@pytest.mark.usefixtures("without_bfloat16")
def test_training_prints_what_the_guide_quotes(
    tiny_data: Path, tiny_config: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(dump_config(tiny_config))
    places: list[str | Path] = ["--models", tmp_path / "models", "--runs", tmp_path / "runs"]
    options: list[str | Path] = ["--config", tmp_path / "run.yaml", "--epochs", "2", "--target-fpr", "0.01"]
    output = printed("train", "--data", tiny_data, "--category", "tiny", *places, *options)
    assert_quoted(quoted("train.md", "to fit"), output)


def test_data_check_prints_what_the_guide_quotes(tiny_data: Path) -> None:
    lines = quoted("prepare-data.md", "laid out as")
    assert_quoted(lines[:2], printed("data", "check", "--data", tiny_data, "--category", "tiny"))
    titles = [line.split(": ", 1)[1].rpartition(" (")[0] for line in lines if line.startswith("warning: ")]
    assert titles
    assert set(titles) <= set(TITLES.values())


def test_recalibration_prints_what_the_guide_quotes(tiny_bundle_store: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle_store, tmp_path / "models")
    (tmp_path / "good").mkdir()
    for i, data in enumerate(good_images(19)):
        (tmp_path / "good" / f"{i:02}.png").write_bytes(data)
    options = ["--station", "line-3", "--reason", "new lamp", "--device", "cpu", "--threads", "1"]
    places: list[str | Path] = ["--models", tmp_path / "models", "--images", tmp_path / "good"]
    output = printed("calibrate", "--category", "tiny", *places, *options)
    assert_quoted(quoted("set-thresholds.md", "calibrated with"), output)
