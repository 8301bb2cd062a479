"""`flowgauge data`: lays pictures out, shows their licence, says how to go on."""

from pathlib import Path

from typer.testing import CliRunner

import flowgauge


def test_elpv_is_laid_out_and_then_found(tmp_path: Path) -> None:
    arguments = ["data", "elpv", "--out", str(tmp_path / "new" / "elpv")]
    first, second = (CliRunner().invoke(flowgauge.app, arguments) for _ in range(2))
    for result in (first, second):
        assert result.exit_code == 0
        assert "CC-BY-NC-SA-4.0" in result.stdout
        assert "Buerhop-Lutz" in result.stdout
        assert " 1131 pictures in " in result.stdout
        assert f"flowgauge train --data {tmp_path}/new/elpv --category" in result.stdout
    assert "laid out" in first.stdout
    assert "already there" in second.stdout


def test_a_folder_of_that_name_with_something_else_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "solar_cell").mkdir()
    result = CliRunner().invoke(flowgauge.app, ["data", "elpv", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "remove or rename" in result.stderr


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(flowgauge.app, ["data", "elpv", "--out", str(tmp_path / "file/x")])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: Not a directory")


def test_a_data_set_must_be_named() -> None:
    assert CliRunner().invoke(flowgauge.app, ["data"]).exit_code == 2
    assert CliRunner().invoke(flowgauge.app, ["data", "cifar"]).exit_code == 2
