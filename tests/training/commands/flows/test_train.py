"""`flowgauge flows train`: output, files, and no half-written run."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import flowgauge
from training.density import saved_flow
from training.density.sheets import sheet_size

TINY = ("--steps", "4", "--hidden", "8", "--depth", "1", "--threads", "1", "--device", "cpu")


def run(out: Path, *options: str, recipe: str = "glow", data: str = "digits") -> Result:
    arguments = ["flows", "train", recipe, "--data", data, "--out", str(out), *TINY, *options]
    return CliRunner().invoke(flowgauge.app, arguments)


def test_it_tells_the_bits_and_keeps_the_run(digits_fit: tuple[Result, Path]) -> None:
    result, folder = digits_fit
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert re.fullmatch(
        r"glow, [\d,]+ parameters, on cpu; 1198 images of \(1, 8, 8\) and 17 levels to fit, 299 held out",
        lines[0],
    )
    looks = [re.match(r"step +(\d+)/60  bits/dim: train (\S+), validation (\S+)  ", line) for line in lines]
    told = [(int(m[1]), m[2], m[3]) for m in looks if m]
    assert [step for step, *_ in told] == list(range(6, 61, 6))
    written = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert told == [
        (row["step"], *(f"{row['bits_per_dim'][part]:.3f}" for part in ("train", "validation")))
        for row in written
    ]
    record = saved_flow.read_record(folder)
    assert f"{record.validation_bits_per_dim:.3f} bits/dim of held-out images, after " in lines[-4]
    assert record.validation_bits_per_dim < written[0]["bits_per_dim"]["validation"]
    assert lines[-3:-1] == [f"kept: {folder}", "images ..."]
    assert lines[-1].startswith(f"next: flowgauge flows sample {folder} ")


def test_samples_and_interpolations_are_sheets(digits_run: Path) -> None:
    with Image.open(digits_run / "samples.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", sheet_size(64, 8, 8, 8))
    with Image.open(digits_run / "interpolations.png") as image:
        assert image.size == sheet_size(80, 8, 8, 10)


def test_existing_run_is_kept_without_overwrite(tmp_path: Path, digits_run: Path) -> None:
    folder = shutil.copytree(digits_run, tmp_path / "run")
    before = (folder / "recipe.json").read_bytes()
    result = run(folder)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {folder} holds a fitted flow; choose another --out, or replace it: --overwrite\n"
    )
    assert (folder / "recipe.json").read_bytes() == before
    assert run(folder, "--overwrite").exit_code == 0
    assert saved_flow.load(folder).record.settings.steps == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("recipe", "data", "options", "said"),
    [
        ("flow++", "digits", [], "error: there is no recipe 'flow++'; there are: nice, realnvp, glow, "),
        ("glow", "nowhere", [], "error: there is no folder of images nowhere"),
        ("glow", "digits", ["--size", "16"], "error: the digits are 8 x 8 and grey; --size and --channels"),
        ("nice", "digits", ["--scales", "2"], "error: nice takes images as vectors and has no scales"),
        ("glow", "digits", ["--scales", "4"], "error: the recipe glow cannot be built: glow "),
        ("glow", "digits", ["--device", "tpu"], "error: unknown device 'tpu'; use auto, cpu, cuda or cuda:N"),
    ],
)
def test_error_is_one_line_and_exits_with_1(
    tmp_path: Path, recipe: str, data: str, options: list[str], said: str
) -> None:
    result = run(tmp_path / "run", *options, recipe=recipe, data=data)
    assert result.exit_code == 1, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
