import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import flowgauge

Images = dict[str, list[bytes]]
Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, tiny_images: Images) -> Path:
    root = tmp_path / "camera"
    root.mkdir()
    (root / "P-1_top.png").write_bytes(tiny_images["defect"][0])
    return root


@pytest.fixture
def run(url: str) -> Run:
    def invoke(
        *arguments: str | Path, url: str = url, category: str = "tiny", charset: str = "utf-8"
    ) -> Result:
        options = ["watch", "--category", category, "--url", url, "--settle", "0.05", *map(str, arguments)]
        return CliRunner(charset=charset).invoke(
            flowgauge.app, options, env={"COLUMNS": "200", "NO_COLOR": "1"}
        )

    return invoke


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_once_as_json(run: Run, folder: Path) -> None:
    result = run(folder, "--once", "--json", "--part", r"(P-\d+)", "--station", "json")
    assert result.exit_code == 0, result.output
    [line] = lines(result)
    assert set(line) == {"file", "inspection_id", "part_id", "decision", "score", "p_value"}
    assert (line["file"], line["part_id"], line["decision"]) == ("P-1_top.png", "P-1", "REJECT")
    again = run(folder, "--once", "--json", "--part", r"(P-\d+)", "--station", "json")
    assert (again.exit_code, again.stdout) == (0, "")


def test_refused_image_is_reported(run: Run, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"no image")
    result = run(folder, "--once", "--move-to", tmp_path / "out")
    assert result.exit_code == 1
    assert "P-1_top.png: REJECT, score " in result.stdout
    assert "bad.png: set aside: " in result.stderr
    (folder / "bad.png").write_bytes(b"no image either")
    [line] = lines(run(folder, "--once", "--move-to", tmp_path / "out", "--json"))
    assert (line["file"], "error" in line) == ("bad.png", True)


@pytest.mark.parametrize(("charset", "said"), [("utf-8", "検査"), ("latin-1", r"\u691c\u67fb")])
def test_names_that_cannot_be_printed(run: Run, folder: Path, charset: str, said: str) -> None:
    picture = folder / "P-1_top.png"
    picture.with_name("検査.png").write_bytes(picture.read_bytes())
    picture.rename(picture.with_name(os.fsdecode(b"Pr\xfcfung_1.png")))
    options = ("--once", "--station", charset)
    result = run(folder, *options, charset=charset)
    assert result.exit_code == 0, result.output
    assert {line.partition(":")[0] for line in result.stdout.splitlines()} == {
        *(f"{said}.png", r"Pr\udcfcfung_1.png")
    }
    shutil.rmtree(folder / ".flowgauge")
    assert {line["file"] for line in lines(run(folder, *options, "--json", charset=charset))} == {
        *("検査.png", r"Pr\udcfcfung_1.png")
    }


def test_name_without_a_part_is_reported(run: Run, folder: Path) -> None:
    result = run(folder, "--once", "--json", "--part", r"^p-(\d+)", "--station", "no part")
    assert (result.exit_code, [line["part_id"] for line in lines(result)]) == (0, [None])
    told = "--part finds no id in it; it is inspected without a part, as are others like it"
    assert result.stderr == f"warning: P-1_top.png: {told}\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--part", "("], "--part"),
        (["--part", "P"], "no group"),
        (
            ["--pattern", "*.png", "--pattern", "sub/*.png"],
            "'sub/*.png' has a slash, but patterns match file names",
        ),
        (["--pattern", f".{os.sep}*.png"], "watch FOLDER/sub"),
        (["--settle", "0"], "--settle"),
        (["--key", "a\nb"], "--key"),
        (["--ca", "absent.pem"], "absent.pem"),
        (["--station", "line-3\r"], r"'line-3\r' must be at most 256 characters, none of them control"),
        (["--station", 257 * "x"], "--station"),
        (["--station", os.fsdecode(b"Pr\xfcfung")], "is not UTF-8"),
    ],
)
def test_wrong_usage(run: Run, folder: Path, options: list[str], said: str) -> None:
    result = run(folder, "--once", *options)
    assert result.exit_code == 2
    assert said in result.stderr


def test_invalid_folders_are_refused(run: Run, folder: Path) -> None:
    assert "no folder" in run(folder / "absent", "--once").stderr
    result = run(folder, "--once", "--move-to", folder / "done")
    assert result.exit_code == 2
    assert "found again" in result.stderr


def test_what_no_server_can_do(run: Run, folder: Path) -> None:
    assert "--category" in run(folder, "--once", category="bottel").stderr
    assert run(folder, "--once", url="nonsense").exit_code == 2
    result = run(folder, "--once", url="http://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no answer from http://127.0.0.1:1")
