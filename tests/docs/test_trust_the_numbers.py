"""The tutorial for ML engineers, and its script, on a small model that was really trained."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import flowgauge
from examples import trust_the_numbers
from tests.app.conftest import serve_http as serve_http  # the fixtures
from tests.docs.console import ROOT, assert_output, console_steps, find_step
from tests.examples.conftest import url as url

PAGE = ROOT / "docs" / "tutorials" / "trust-the-numbers.md"


@pytest.fixture
def evaluations(tiny_bundle_store: Path, tiny_data: Path, tmp_path: Path) -> Path:
    out = tmp_path / "evaluations"
    options = {"--data": tiny_data, "--category": "tiny", "--models": tiny_bundle_store, "--out": out}
    arguments = [str(word) for option in options.items() for word in option]
    assert CliRunner().invoke(flowgauge.app, ["evaluate", *arguments]).exit_code == 0
    return out


def test_script_confirms_every_figure(
    evaluations: Path, tiny_bundle_store: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--evaluations", str(evaluations), "--models", str(tiny_bundle_store), "--url", url]
    assert trust_the_numbers.main(["--category", "tiny", *where]) == 0
    printed = capsys.readouterr().out
    assert_output(find_step(console_steps(PAGE), "examples.trust_the_numbers"), printed)
    assert "16 of 16 equal scores.csv" in printed

    [scores] = evaluations.rglob("scores.csv")
    rows = list(csv.reader(scores.read_text().splitlines()))
    rows[1][2] = str(float(rows[1][2]) + 0.01)
    with scores.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert trust_the_numbers.main(["--category", "tiny", *where]) == 1
    assert "FAIL  served scores" in capsys.readouterr().out


def test_missing_evaluation_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trust_the_numbers.main(["--category", "tiny", "--evaluations", str(tmp_path)]) == 1
    assert "flowgauge evaluate makes one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n", "rate", "place"), [(99, 0.01, 1), (42, 0.01, 1), (226, 0.01, 2), (99, 0.29, 29)]
)
def test_threshold_is_the_largest_score_of_its_rank(n: int, rate: float, place: int) -> None:
    scores = np.arange(n, dtype=float)
    assert trust_the_numbers.split_conformal(scores, rate) == (n - place, place / (n + 1))
