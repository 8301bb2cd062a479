"""`flowgauge flows score`: ranking, and a CSV without formulas."""

import csv
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

import flowgauge
from training.density import saved_flow
from training.density.image_data import digits
from training.density.outliers import negative_log_likelihood


def run(folder: Path, data: str | Path, *options: str) -> Result:
    arguments = ["flows", "score", str(folder), "--data", str(data), "--device", "cpu", *options]
    return CliRunner().invoke(flowgauge.app, arguments)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def parts(tiny_data: Path, tmp_path: Path) -> Path:
    """Good parts that the flow has not seen, and an image of nothing but noise."""
    folder = shutil.copytree(tiny_data / "tiny/test/good", tmp_path / "parts")
    noise = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    cv2.imwrite(str(folder / "noise.png"), noise)
    return folder


def test_every_digit_gets_its_likelihood_the_strangest_first(digits_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "scores.csv"
    result = run(digits_run, "digits", "--out", str(out), "--threads", "2")
    assert result.exit_code == 0, result.output
    found = rows(out)
    assert [int(row["rank"]) for row in found] == list(range(1, 301))
    far = [float(row["typicality_nats"]) for row in found]
    assert far == sorted(far, reverse=True)
    loaded = saved_flow.load(digits_run)
    nats = -negative_log_likelihood(loaded.flow, digits().test)
    usual = loaded.record.validation_bits_per_dim * 64 * math.log(2)
    for row in found:
        value = float(row["log_likelihood_nats"])
        assert value == nats[int(row["picture"].removeprefix("test/"))].item()
        assert float(row["bits_per_dim"]) == pytest.approx(-value / 64 / math.log(2))
        assert float(row["typicality_nats"]) == pytest.approx(abs(-value - usual))
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["rank", "nats", "bits/dim", "typicality", "picture"]
    assert [line.split()[-1] for line in lines[1:21]] == [row["picture"] for row in found[:20]]
    assert lines[21:] == [
        "and 280 more; --top 0 prints all, --out FILE.csv keeps all",
        f"scores of every image: {out}",
    ]


def test_images_of_another_kind_are_refused(digits_run: Path, parts_run: Path, parts: Path) -> None:
    result = run(parts_run, "digits")
    assert result.exit_code == 1
    assert "this flow takes (1, 16, 16) of 256 levels" in result.stderr
    result = run(digits_run, parts)
    assert result.exit_code == 1
    assert "this flow takes images of 17 levels, as the digits" in result.stderr


def test_unreadable_image_is_named_and_others_are_scored(
    parts_run: Path, parts: Path, tmp_path: Path
) -> None:
    count = len(list(parts.iterdir()))
    (parts / "a\x1bb.png").write_text("no image")
    out = tmp_path / "s.csv"
    result = run(parts_run, parts, "--out", str(out))
    assert result.exit_code == 1
    said = result.stderr.splitlines()
    assert said[0].startswith("a\N{REPLACEMENT CHARACTER}b.png: ")
    assert said[1:] == [f"1 of {count + 1} not scored"]
    assert len(rows(out)) == count
