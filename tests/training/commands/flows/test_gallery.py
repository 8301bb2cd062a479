"""`flowgauge flows gallery`: its files, its refusals, and what `flowgauge flows --help` costs."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import flowgauge
from training.density.fit import DensityFitError
from training.density.plane import Learned, fit_target
from training.density.targets import Target


def run(out: Path, *options: str) -> Result:
    return CliRunner().invoke(flowgauge.app, ["flows", "gallery", "--out", str(out), *options])


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same drawings with fewer pixels, in a moment."""
    drawings = pytest.importorskip("training.density.gallery")
    for name in ("planar_and_radial", "learned_densities"):
        monkeypatch.setattr(drawings, name, functools.partial(getattr(drawings, name), side=12))


@pytest.mark.usefixtures("coarse")
def test_it_draws_both_figures(tmp_path: Path) -> None:
    result = run(
        tmp_path / "new", "--targets", "two_moons, banana,two_moons", "--steps", "3", "--recipe", "planar"
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"drawn: {tmp_path}/new/planar_radial.png"
    assert lines[1] == "two_moons ..."
    assert lines[2].startswith("two_moons: KL ")
    assert [line for line in lines if " KL " in line][1:] == [lines[-2]]
    assert lines[-2].startswith("banana: KL ")
    assert lines[-1] == f"drawn: {tmp_path}/new/densities.png"
    for name in ("planar_radial", "densities"):
        with Image.open(tmp_path / f"new/{name}.png") as image:
            assert image.format == "PNG"


@pytest.mark.usefixtures("coarse")
def test_a_fit_that_fails_takes_no_other_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(recipe: str, target: Target, **options: Any) -> Learned:
        if target.name == "banana":
            raise DensityFitError("the likelihood is no longer finite at step 1")
        return fit_target(recipe, target, **options)

    monkeypatch.setattr("training.density.plane.fit_target", diverging)
    result = run(tmp_path, "--targets", "banana,two_moons", "--steps", "3", "--recipe", "planar")
    assert result.exit_code == 1
    assert result.stderr == "error: banana: the likelihood is no longer finite at step 1\n"
    assert result.stdout.splitlines()[-1] == f"drawn: {tmp_path}/densities.png"
    (tmp_path / "densities.png").unlink()
    assert run(tmp_path, "--targets", "banana", "--steps", "3", "--recipe", "nice").exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["planar_radial.png"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--targets", "three_moons"],
            "error: there is no target 'three_moons'; there are: eight_gaussians, ",
        ),
        (["--targets", ""], "error: there is no target ''"),
        (
            ["--recipe", "flow++"],
            "error: there is no recipe 'flow++'; there are: nice, realnvp, glow, spline, ",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(
    tmp_path: Path, options: list[str], said: str
) -> None:
    result = run(tmp_path / "out", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run(tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == "error: drawing needs matplotlib: pip install matplotlib\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", [[], ["gallery"], ["train"], ["sample"], ["score"]])
def test_help_explains_and_costs_nothing(command: list[str]) -> None:
    code = (
        "import sys, flowgauge\n"
        "try:\n    flowgauge.main()\n"
        "finally:\n    print('loaded:', *sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "flows", *command, "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert f"flows {' '.join([*command, '[OPTIONS]'])}" in done.stdout
    loaded = done.stderr.partition("loaded:")[2].split()
    assert "typer" in loaded
    assert [name for name in ("torch", "matplotlib", "numpy", "sklearn", "cv2") if name in loaded] == []
