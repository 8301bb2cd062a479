"""`flowgauge flows sample`: number, size and reproducibility of images."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import flowgauge
from training.density.sheets import sheet_size


def run(folder: Path, out: Path, *options: str) -> Result:
    return CliRunner().invoke(
        flowgauge.app, ["flows", "sample", str(folder), "--out", str(out), "--device", "cpu", *options]
    )


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_name_with_png_is_a_sheet(digits_run: Path, tmp_path: Path) -> None:
    result = run(digits_run, tmp_path / "new" / "sheet.png", "-n", "5", "--temperature", "0.7")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"5 images of {digits_run}: {tmp_path}/new/sheet.png\n"
    # Digits of 8 x 8 are enlarged six times: three columns, two rows, two pixels between.
    assert pixels(tmp_path / "new/sheet.png").shape == (2 * 50 + 2, 3 * 50 + 2)
    assert sheet_size(5, 8, 8, 3) == (152, 102)


def test_another_name_is_a_folder_of_images_as_they_are(digits_run: Path, tmp_path: Path) -> None:
    assert run(digits_run, tmp_path / "many", "-n", "3").exit_code == 0
    files = sorted((tmp_path / "many").iterdir())
    assert [file.name for file in files] == ["0000.png", "0001.png", "0002.png"]
    found = np.stack([pixels(file) for file in files])
    assert found.shape == (3, 8, 8)
    assert set(np.unique(found)) <= {round(255 * level / 16) for level in range(17)}


@pytest.mark.parametrize("name", ["there.png", "there"])
def test_existing_files_are_kept_without_overwrite(digits_run: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    assert run(digits_run, out, "-n", "2").exit_code == 0
    first = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    again = run(digits_run, out, "-n", "2", "--seed", "9")
    assert again.exit_code == 1
    assert "is there already; choose another --out, or replace it: --overwrite" in again.stderr
    assert {path: path.read_bytes() for path in first} == first
    assert run(digits_run, out, "-n", "2", "--seed", "9", "--overwrite").exit_code == 0
    assert {path: path.read_bytes() for path in first} != first


def test_missing_or_damaged_run_is_refused(digits_run: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere", tmp_path / "a.png")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: there is no folder {tmp_path}/nowhere")
    folder = shutil.copytree(digits_run, tmp_path / "run")
    with (folder / "flow.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    result = run(folder, tmp_path / "a.png")
    assert result.exit_code == 1
    assert "flow.safetensors is damaged: its sha256 is not the one in recipe.json" in result.stderr
    assert not (tmp_path / "a.png").exists()
