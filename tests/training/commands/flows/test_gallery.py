"""`flowgauge flows gallery`: files, errors, and fast `flowgauge flows --help`."""

import functools
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import flowgauge


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
