"""`flowgauge calibrate`, run as a command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

import flowgauge
from app.auth.audit import Audit
from app.database.engine import Database
from app.main import create_app
from app.settings import Settings
from flows.fastflow.bundle import models_folder
from flows.fastflow.calibration.images_per_part import PARTS
from flows.fastflow.imaging.decoder import read_image
from tests.app.support.calibrations import URL, good_images
from tests.conftest import png

Run = Callable[..., Result]

PROMISED = (  # by 19 images; Beta(2, 18) for this calibration
    "at most 10.00% of good parts on average; with 95 % confidence at most 22.64% (asked for 10.00%, "
    "certified)\n"
)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with 19 images of good parts, and what an operating system leaves beside them."""
    folder = tmp_path / "good"
    (folder / ".Trash").mkdir(parents=True)
    for i, data in enumerate(good_images(19)):
        (folder / f"{i:02}.png").write_bytes(data)
    (folder / "notes.txt").write_text("no picture")
    (folder / "._00.png").write_bytes(b"a Mac's notes")
    (folder / ".Trash/old.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def run(store: Path, pictures: Path) -> Run:
    def calibrate(*arguments: str, category: str = "tiny", images: Path = pictures) -> Result:
        where = ["--models", str(store), "--category", category, "--images", str(images)]
        where += ["--device", "cpu", "--threads", "1"]  # as in all tests
        return CliRunner().invoke(flowgauge.app, ["calibrate", *where, *arguments])

    return calibrate


def failed(result: Result, code: int = 1) -> str:
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    return " ".join(result.stderr.replace("│", " ").split())  # what is wrong with an option is in a box


def nothing_was_made(store: Path) -> bool:
    return not (store / "tiny" / models_folder.CALIBRATIONS).exists()


def test_a_server_decides_by_it_at_once(run: Run, store: Path) -> None:
    with TestClient(create_app(Settings(models=store))) as client:
        before = client.get(URL).json()["threshold"]
        result = run("--json", "--reason", "new lamp")
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        after = client.get(URL).json()
    assert (told["pictures"], told["before"], told["threshold"]) == (19, before, after["threshold"])
    assert (after["origin"]["by"], after["origin"]["reason"]) == ("command line", "new lamp")
    assert after["threshold"]["calibration"] == {"id": told["calibration"], "source": "line"}


def test_it_says_what_is_promised_and_how_the_threshold_moved(run: Run) -> None:
    result = run("--station", "line-3")
    assert result.exit_code == 0, result.output
    assert "station line-3: calibrated with 19 images" in result.stdout
    assert PROMISED in result.stdout
    assert " from " in result.stdout


def test_progress_and_result_are_events(run: Run) -> None:
    told = [json.loads(line) for line in run("--progress=json").stdout.splitlines()]
    assert {(one["stage"], one["total"]) for one in told[:-1]} == {("calibrate", 19)}
    assert (told[-1]["event"], told[-1]["pictures"]) == ("result", 19)


def test_of_pictures_of_one_part_one_counts(run: Run, pictures: Path) -> None:
    for path in sorted(pictures.glob("[0-9]*.png")):
        image = read_image(path)
        (pictures / f"{path.stem}-again.png").write_bytes(png(np.asarray(image ^ 1, dtype=np.uint8)))
    assert "calibrated with 38 images" in run().stdout
    (pictures / PARTS).write_text(r"^\d\d")
    result = run()
    assert "calibrated with 19 images, one of each part" in result.stdout
    assert PROMISED in result.stdout


@pytest.mark.parametrize("below", ["good", "Data/Images/Normal"])
def test_parts_are_told_from_the_folder_of_the_category(
    run: Run, pictures: Path, tmp_path: Path, below: str
) -> None:
    """Where they lie in a data folder: cap/parts.txt beside cap/good, above cap/validation/good."""
    folder = tmp_path / "data/cap" / below
    shutil.copytree(pictures, folder)
    told_by = tmp_path / "data/cap" / PARTS
    told_by.write_text(r"^\d")
    result = run(images=folder)
    assert "calibrated with 2 images, one of each part" in result.stdout
    assert f"grouped by {told_by}" in result.stdout
    assert json.loads(run("--json", images=folder).stdout)["parts_file"] == str(told_by)


def test_engine_without_calibration_in_the_bundle_gets_one(
    run: Run, store: Path, tiny_images: dict[str, list[bytes]], without_bfloat16: None
) -> None:
    settings = Settings(models=store, precision="bfloat16")
    predict = "/v1/models/tiny/predict?store=false"
    with TestClient(create_app(settings)) as client:
        answer = client.post(predict, content=tiny_images["good"][0])
        assert (answer.status_code, answer.json()["type"]) == (422, "rejected-bundle")
    told = json.loads(run("--precision", "bfloat16", "--json").stdout)
    assert "bfloat16 takes several times as long as float32" in told["warnings"][-1]
    with TestClient(create_app(settings)) as client:
        answer = client.post(predict, content=tiny_images["good"][0])
        assert answer.status_code == 200, answer.text
        body = answer.json()
    assert body["engine"] == "torch-cpu-bfloat16"
    assert body["threshold"] == told["threshold"]


def test_is_in_the_audit_log(run: Run, tmp_path: Path) -> None:
    (tmp_path / "history").mkdir()
    database = Database(Settings().database_url)
    database.upgrade()
    run("--station", "line-3", "--reason", "new lamp")
    (tmp_path / "good" / "copy.png").write_bytes((tmp_path / "good" / "00.png").read_bytes())
    run()
    entries = [entry for entry in Audit(database).page(10)[::-1] if entry.outcome != "begun"]
    database.close()
    assert {entry.action for entry in entries} == {"model.calibrate"}
    assert [entry.outcome for entry in entries] == ["done", "refused"]
    assert (entries[0].detail["station"], entries[0].detail["reason"]) == ("line-3", "new lamp")
    assert "copy.png" in entries[1].detail["refusal"]


class TestRefused:
    def test_a_part_of_which_one_picture_was_fitted(
        self, run: Run, store: Path, pictures: Path, tiny_data: Path
    ) -> None:
        for i, path in enumerate(sorted((tiny_data / "tiny/train/good").iterdir())[:19]):
            shutil.copy(path, pictures / f"{i:02}-fitted.png")
        (pictures / PARTS).write_text(r"^\d\d")
        assert "The model was fitted to" in failed(run())
        assert nothing_was_made(store)

    def test_pictures_that_cannot_be_read_are_all_named(self, run: Run, store: Path, pictures: Path) -> None:
        (pictures / "a.png").write_bytes(b"no picture")
        (pictures / "b.png").write_bytes((pictures / "00.png").read_bytes()[:100])
        said = failed(run())
        assert "a.png" in said
        assert "b.png" in said
        assert nothing_was_made(store)

    def test_what_is_not_there(self, run: Run, tmp_path: Path) -> None:
        assert "no model of category 'nut'" in failed(run(category="nut"))
        assert "does not exist" in failed(run(images=tmp_path / "none"), 2)
        (tmp_path / "empty").mkdir()
        assert "holds no images" in failed(run(images=tmp_path / "empty"), 2)

    @pytest.mark.parametrize("arguments", [("--precision", "int8"), ("--reason", ""), ("--station", "a\r")])
    def test_options_that_cannot_be(self, run: Run, store: Path, arguments: tuple[str, str]) -> None:
        failed(run(*arguments), 2)
        assert nothing_was_made(store)


def test_folders_below_are_taken_only_where_that_is_asked_for(run: Run, store: Path, pictures: Path) -> None:
    """There defective parts may lie, and masks."""
    (pictures / "ng").mkdir()
    (pictures / "18.png").rename(pictures / "ng/18.png")
    told = failed(run(), 2)
    assert "has folders with images in it, such as ng/18.png" in told
    assert nothing_was_made(store)
    result = run("--json", "--recursive")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["pictures"] == 19


@pytest.mark.parametrize("below", [".", "good"])
def test_parts_that_are_told_below_are_not_passed_over(
    run: Run, store: Path, pictures: Path, tmp_path: Path, below: str
) -> None:
    """Taken for a part each, pictures would promise what they cannot keep."""
    line = tmp_path / "line"
    shutil.copytree(pictures, line / "cap" / below)
    (line / "notes").mkdir()
    (line / "notes" / PARTS).write_text("of no picture")
    assert "calibrated with 19 images (" in run("--recursive", images=line).stdout
    shutil.rmtree(store / "tiny" / models_folder.CALIBRATIONS)
    told_by = line / "cap" / PARTS
    told_by.write_text(r"^\d")
    (line / PARTS).write_text(r"^\d\d")  # of all, it seems
    assert "name its folder" in failed(run("--recursive", images=line), 2)
    assert nothing_was_made(store)
    result = run("--recursive", images=line / "cap")
    assert "calibrated with 2 images, one of each part" in result.stdout
