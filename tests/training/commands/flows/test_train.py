"""`flowgauge flows train`: what is said and kept, and that nothing is half-written."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import flowgauge
from flows import Flow
from training.density import saved
from training.density.fit import DensityFitError, FitPoint, fit
from training.density.pictures import digits
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
        r"glow, [\d,]+ parameters, on cpu; 1198 pictures of \(1, 8, 8\) and 17 levels to fit, 299 held out",
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
    record = saved.read_record(folder)
    assert f"{record.validation_bits_per_dim:.3f} bits/dim of held-out pictures, after " in lines[-4]
    assert record.validation_bits_per_dim < written[0]["bits_per_dim"]["validation"]
    assert lines[-3:-1] == [f"kept: {folder}", "pictures ..."]
    assert lines[-1].startswith(f"next: flowgauge flows sample {folder} ")


def test_the_folder_says_what_was_fitted_to_what_and_how(digits_run: Path) -> None:
    assert sorted(path.name for path in digits_run.iterdir()) == [
        "flow.safetensors",
        "interpolations.png",
        "metrics.jsonl",
        "recipe.json",
        "samples.png",
    ]
    assert [path.name for path in digits_run.parent.iterdir()] == ["digits"]
    record = json.loads((digits_run / "recipe.json").read_text())
    assert record["recipe"] == "glow"
    assert record["arguments"] == {"scales": 2, "steps": 1, "hidden": 8, "alpha": 0.01}
    assert (record["event_shape"], record["levels"]) == ([1, 8, 8], 17)
    assert record["data"]["source"] == "digits"
    assert record["data"] == saved.Data.of(digits(), "digits").model_dump()
    assert record["settings"]["steps"] == 60
    weights = (digits_run / "flow.safetensors").read_bytes()
    assert record["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert record["libraries"]["torch"] == torch.__version__


def test_samples_and_interpolations_are_sheets(digits_run: Path) -> None:
    with Image.open(digits_run / "samples.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", sheet_size(64, 8, 8, 8))
    with Image.open(digits_run / "interpolations.png") as image:
        assert image.size == sheet_size(80, 8, 8, 10)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run(tmp_path / name, "--seed", seed).exit_code == 0
    a, b, c = ((tmp_path / name / "flow.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("recipe", ["nice", "realnvp", "spline", "maf", "neural_spline"])
def test_every_recipe_fits_and_is_read_again(tmp_path: Path, recipe: str) -> None:
    result = run(tmp_path / "run", recipe=recipe)
    assert result.exit_code == 0, result.output
    loaded = saved.load(tmp_path / "run")
    assert loaded.flow.log_prob(digits().test[:3]).isfinite().all()
    assert loaded.record.recipe == ("spline" if recipe == "neural_spline" else recipe)


def test_colour_pictures_of_a_folder(tmp_path: Path, tiny_data: Path) -> None:
    result = run(tmp_path / "run", "--size", "8", data=str(tiny_data / "tiny/train/good"))
    assert result.exit_code == 0, result.output
    assert "pictures of (3, 8, 8) and 256 levels to fit" in result.stdout
    with Image.open(tmp_path / "run/samples.png") as image:
        assert image.mode == "RGB"


def test_by_default_the_folder_is_named_after_recipe_and_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["flows", "train", "nice", "--data", "digits", *TINY]
    assert CliRunner().invoke(flowgauge.app, arguments).exit_code == 0
    assert (tmp_path / "runs-flows/nice-digits/recipe.json").is_file()


def test_a_run_that_is_there_is_kept_unless_it_is_to_be_replaced(tmp_path: Path, digits_run: Path) -> None:
    folder = shutil.copytree(digits_run, tmp_path / "run")
    before = (folder / "recipe.json").read_bytes()
    result = run(folder)
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: {folder} holds a fitted flow; choose another --out, or replace it: --overwrite\n"
    )
    assert (folder / "recipe.json").read_bytes() == before
    assert run(folder, "--overwrite").exit_code == 0
    assert saved.load(folder).record.settings.steps == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years")
    result = run(tmp_path / "mine", "--overwrite")
    assert result.exit_code == 1
    assert "is there already and holds no fitted flow" in result.stderr
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"
    (tmp_path / "mine/recipe.json").write_text('{"flour": 500}')
    result = run(tmp_path / "mine", "--overwrite")
    assert result.exit_code == 1
    assert "is there already and holds no fitted flow that can be read" in result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "mine/thesis.txt").read_text() == "years"


@pytest.mark.parametrize(
    ("recipe", "data", "options", "said"),
    [
        ("flow++", "digits", [], "error: there is no recipe 'flow++'; there are: nice, realnvp, glow, "),
        ("glow", "nowhere", [], "error: there is no folder of pictures nowhere"),
        ("glow", "digits", ["--size", "16"], "error: the digits are 8 x 8 and grey; --size and --channels"),
        ("nice", "digits", ["--scales", "2"], "error: nice takes pictures as vectors and has no scales"),
        ("glow", "digits", ["--scales", "4"], "error: the recipe glow cannot be built: glow "),
        ("glow", "digits", ["--device", "tpu"], "error: 'tpu' is no device; use auto, cpu, cuda or cuda:N"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_exits_1(
    tmp_path: Path, recipe: str, data: str, options: list[str], said: str
) -> None:
    result = run(tmp_path / "run", *options, recipe=recipe, data=data)
    assert result.exit_code == 1, result.output
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise DensityFitError("the likelihood is no longer finite at step 3")

    monkeypatch.setattr("training.density.fit.fit", failing)
    result = run(tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr == "error: the likelihood is no longer finite at step 3\n"
    assert list(tmp_path.iterdir()) == []


def test_a_fit_whose_samples_cannot_be_drawn_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: object, **__: object) -> Iterator[torch.Tensor]:
        yield torch.full((64, 1, 8, 8), torch.nan)

    monkeypatch.setattr("training.density.saved.draw", drawn)
    result = run(tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "no samples.png: the flow's samples are not finite numbers" in result.stdout
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "flow.safetensors",
        "interpolations.png",
        "metrics.jsonl",
        "recipe.json",
    ]
    assert saved.load(tmp_path / "run").flow.log_prob(digits().test[:3]).isfinite().all()


def test_a_fit_interrupted_while_its_pictures_are_drawn_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.density.interpolate.interpolate", interrupted)
    result = run(tmp_path / "run")
    assert result.exit_code == 130
    assert result.stdout.splitlines()[-2:] == [f"kept: {tmp_path}/run", "pictures ..."]
    assert saved.load(tmp_path / "run").record.settings.steps == 4
    assert not (tmp_path / "run/interpolations.png").exists()


def test_a_fit_whose_name_is_taken_meanwhile_is_kept_under_another(
    tmp_path: Path, digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(*arguments: Any, **options: Any) -> list[FitPoint]:
        shutil.copytree(digits_run, tmp_path / "run")
        return fit(*arguments, **options)

    monkeypatch.setattr("training.density.fit.fit", overtaken)
    result = run(tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert f"{tmp_path}/run was taken meanwhile; this run has another name\nkept: {tmp_path}/run-2" in (
        result.stdout
    )
    assert saved.load(tmp_path / "run").record.settings.steps == 60
    assert saved.load(tmp_path / "run-2").record.settings.steps == 4
    assert (tmp_path / "run-2/samples.png").is_file()


def test_a_fit_that_ends_early_keeps_its_best_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second of four steps; that every look is in its file at once is seen too."""

    def spoilt(flow: Flow, *parts: Any, on_point: Callable[[FitPoint], None]) -> list[FitPoint]:
        log_prob, looks = flow.log_prob, []

        def look(point: FitPoint) -> None:
            on_point(point)
            looks.append(point)
            (metrics,) = tmp_path.rglob("metrics.jsonl")
            assert len(metrics.read_text().splitlines()) == point.step

        def ending(*arguments: Any) -> torch.Tensor:
            return log_prob(*arguments) * (torch.nan if flow.training and len(looks) == 2 else 1)

        monkeypatch.setattr(flow, "log_prob", ending)
        return fit(flow, *parts, on_point=look)

    monkeypatch.setattr("training.density.fit.fit", spoilt)
    result = run(tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert (
        "the fit ended after step 2: the likelihood was no longer finite; the best weights" in result.stdout
    )
    assert saved.load(tmp_path / "run").flow.log_prob(digits().test[:3]).isfinite().all()


def test_bits_that_are_no_number_are_those_of_the_best_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.density.outliers.negative_log_likelihood", lambda *_, **__: torch.tensor([torch.inf])
    )
    assert run(tmp_path / "run").exit_code == 0
    looks = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    best = min(look["bits_per_dim"]["validation"] for look in looks)
    assert saved.read_record(tmp_path / "run").validation_bits_per_dim == pytest.approx(best)


def test_pictures_that_do_not_do_are_refused(tmp_path: Path, tiny_data: Path) -> None:
    parts = tiny_data / "tiny/train/good"
    result = run(tmp_path / "run", "--size", "10", data=str(parts))
    assert result.exit_code == 1
    assert "their size must be a multiple of 4; got 10" in result.stderr
    result = run(tmp_path / "run", "--channels", "2", data=str(parts))
    assert result.exit_code == 1
    assert "1 channel (grey) or 3 (RGB); got 2" in result.stderr
    few = tmp_path / "few"
    few.mkdir()
    assert "there are no pictures in" in run(tmp_path / "run", data=str(few)).stderr
    for path in sorted(parts.iterdir())[:5]:
        shutil.copy(path, few)
    assert "5 different pictures; at least 6" in run(tmp_path / "run", data=str(few)).stderr
    (few / "zz.png").write_text("no picture")
    assert "zz.png" in run(tmp_path / "run", data=str(few)).stderr
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_said_before_the_fit(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(tmp_path / "file" / "run")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "bits/dim" not in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["glow"],
        ["glow", "--data", "digits", "--steps", "0"],
        ["glow", "--data", "digits", "--hidden", "none"],
        ["maf", "--data", "digits", "--batch-size", "1"],
        ["glow", "--data", "pictures", "--size", str(saved.MAX_SIDE + 1)],
        ["glow", "--data", "digits", "surplus"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(flowgauge.app, ["flows", "train", *arguments]).exit_code == 2


@pytest.mark.slow  # that of `flowgauge train` says more
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flowgauge", "flows", "train", "nice", "--data", "digits"]
    command += ["--out", str(tmp_path / "run"), *TINY, "--steps", "100000"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("step "):
                child.send_signal(signal.SIGINT)
                break
        _, said = child.communicate(timeout=120)
    assert child.returncode == 130
    assert (
        said.strip() == "interrupted: nothing half-written is left; what was said to be kept or drawn stays"
    )
    assert list(tmp_path.iterdir()) == []
