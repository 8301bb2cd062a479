"""`flowgauge data`: check, layout of ELPV, licence and next step."""

import json
import shutil
from pathlib import Path

from typer.testing import CliRunner, Result

import flowgauge
from tests.training.data.check.parts import category


def test_elpv_is_laid_out_and_then_found(tmp_path: Path) -> None:
    arguments = ["data", "elpv", "--out", str(tmp_path / "new" / "elpv")]
    first, second = (CliRunner().invoke(flowgauge.app, arguments) for _ in range(2))
    for result in (first, second):
        assert result.exit_code == 0
        assert "CC-BY-NC-SA-4.0" in result.stdout
        assert "Buerhop-Lutz" in result.stdout
        assert " 1131 images in " in result.stdout
        assert f"flowgauge train --data {tmp_path}/new/elpv --category" in result.stdout
    assert "laid out" in first.stdout
    assert "already there" in second.stdout


def check(root: Path, *options: str) -> Result:
    return CliRunner().invoke(
        flowgauge.app, ["data", "check", "--data", str(root), "--category", "disc", *options]
    )


def test_check_prints_findings_and_writes_all_to_json(tmp_path: Path) -> None:
    folder = category(tmp_path, train=12, defective=2)
    for i in range(3):
        shutil.copy(folder / f"train/good/00{i}.png", folder / f"test/good/90{i}.png")
    result = check(tmp_path, "--shown", "2", "--json", str(tmp_path / "found.json"))
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if not line.endswith(" ...")]
    assert lines[0] == f"{folder}, laid out as MVTec AD"
    assert lines[1].startswith(
        "data check: 12 training images, 9 test images, 2 masks; 0 errors, 3 warnings ("
    )
    assert lines[2:] == [
        "warning: test images that are, or nearly are, among the training images (3)",
        "  test/good/900.png = train/good/000.png, byte for byte",
        "  test/good/901.png = train/good/001.png, byte for byte",
        "  and 1 more",
        "fewer than 20: whether one of them is unlike the others was not looked for",
        "too few for 1.00%: 2 held-out images can promise 33.33% false rejects at best; it takes 493 "
        "good images in all",
    ]
    assert json.loads((tmp_path / "found.json").read_text())["counts"] == {"leak": 3}
    found = json.loads(check(tmp_path, "--progress", "json").stdout.splitlines()[-1])
    assert (found["event"], [one["kind"] for one in found["findings"]]) == ("result", ["leak"] * 3)


def test_check_of_unusable_images_exits_with_1(tmp_path: Path) -> None:
    folder = category(tmp_path, train=3, good=0)
    (folder / "train/good/001.png").write_bytes(b"")
    result = check(tmp_path)
    assert result.exit_code == 1
    assert "no test images: no images in the folders of disc/test" in result.stdout
    assert "1 errors, 0 warnings" in result.stdout
    assert "  train/good/001.png: The file is not a PNG" in result.stdout
