"""`flowgauge evaluate`: the figures it prints, and the files it leaves."""

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner, Result

import flowgauge
from flows.fastflow.bundle import resolve
from flows.fastflow.detector import Detector
from flows.fastflow.images import read


def run(data: Path, models: Path, out: Path, *options: str) -> Result:
    arguments = ["evaluate", "--data", str(data), "--category", "tiny", "--models", str(models)]
    return CliRunner().invoke(flowgauge.app, [*arguments, "--out", str(out), *options])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluations")


@pytest.fixture(scope="module")
def evaluated(tiny_data: Path, tiny_bundle_store: Path, out: Path) -> Result:
    return run(tiny_data, tiny_bundle_store, out)


@pytest.fixture(scope="module")
def folder(evaluated: Result, tiny_bundle_store: Path, out: Path) -> Path:
    """Where the evaluation's files are."""
    return out / "tiny" / resolve(tiny_bundle_store, "tiny").name


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_prints_the_figures(evaluated: Result, tiny_bundle_store: Path, folder: Path) -> None:
    assert evaluated.exit_code == 0, evaluated.output
    bundle = resolve(tiny_bundle_store, "tiny")
    summary = json.loads((folder / "summary.json").read_text())
    lines = evaluated.stdout.splitlines()
    assert lines[:2] == ["evaluate ...", f"{bundle}: 8 good and 8 defective test pictures"]
    assert lines[2] == f"image AUROC {summary['image_auroc']:.3f}"
    assert lines[3] == "pixel AUROC not measured: no defect has a mask"
    assert re.fullmatch(
        r"at threshold \d+\.\d{4}: \d+\.\d\d% of good parts rejected "
        r"\(asked for at most 10\.00% on average: 0 to \d of 8, 95 %\)",
        lines[4],
    )
    assert re.fullmatch(r"\d+\.\d\d% of defective parts passed", lines[5])
    assert lines[6:] == [f"scores of every picture: {folder / 'scores.csv'}"]


def test_the_line_of_the_image_auroc_is_for_tools_too(evaluated: Result) -> None:
    [found] = re.findall(r"^image AUROC ([01]\.\d{3})$", evaluated.stdout, re.MULTILINE)
    assert float(found) > 0.9


def test_every_score_goes_through_the_file_without_losing_a_bit(
    folder: Path, tiny_data: Path, tiny_bundle_store: Path
) -> None:
    detector = Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu")
    found = rows(folder)
    test = tiny_data / "tiny/test"
    paths = [*sorted((test / "good").iterdir()), *sorted((test / "scratch").iterdir())]
    assert [row["path"] for row in found] == [str(path) for path in paths]
    assert [row["defect"] for row in found] == [""] * 8 + ["scratch"] * 8
    for row, path in zip(found, paths, strict=True):
        [prediction] = detector.predict([read(path)])
        assert float(row["score"]) == prediction.score
        assert float(row["p_value"]) == prediction.p_value
        assert row["decision"] == prediction.decision


def test_the_summary_follows_from_the_scores(folder: Path, tiny_bundle_store: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    found = rows(folder)
    defective = [row["defect"] != "" for row in found]
    rejected = [row["decision"] == "REJECT" for row in found]
    assert summary == {
        "category": "tiny",
        "version": resolve(tiny_bundle_store, "tiny").name,
        "good": 8,
        "defective": 8,
        "image_auroc": roc_auc_score(defective, [float(row["score"]) for row in found]),
        "pixel_auroc": None,
        "with_mask": 0,
        "false_rejects": sum(rejected[:8]) / 8,
        "escapes": 1 - sum(rejected[8:]) / 8,
        "target_fpr": 0.1,
        "certified": True,
        "engine": "torch-cpu-float32",
    }


def test_with_masks_pixels_are_measured_and_odd_names_are_no_trouble(
    tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / 'it\'s, "data" [1]')
    masks = data / "tiny/ground_truth/scratch"
    masks.mkdir(parents=True)
    for path in (data / "tiny/test/scratch").iterdir():
        bright = (read(path).min(2) > 200).astype(np.uint8) * 255
        (masks / f"{path.stem}_mask.png").write_bytes(cv2.imencode(".png", bright)[1].tobytes())
    result = run(data, tiny_bundle_store, tmp_path)
    assert result.exit_code == 0, result.output
    [found] = re.findall(r"^pixel AUROC ([01]\.\d{3})$", result.stdout, re.MULTILINE)
    assert float(found) > 0.9
    folder = tmp_path / "tiny" / resolve(tiny_bundle_store, "tiny").name
    assert json.loads((folder / "summary.json").read_text())["pixel_auroc"] == pytest.approx(
        float(found), abs=5e-4
    )
    assert all(Path(row["path"]).is_file() for row in rows(folder))


def test_a_version_can_be_named(tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path) -> None:
    version = resolve(tiny_bundle_store, "tiny").name
    assert run(tiny_data, tiny_bundle_store, tmp_path, "--version", version).exit_code == 0
    result = run(tiny_data, tiny_bundle_store, tmp_path / "none", "--version", "20200101T000000-abcdef")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: category 'tiny' has no version '20200101T000000-abcdef'; there")
    assert not (tmp_path / "none").exists()


def test_a_second_evaluation_replaces_the_first(
    evaluated: Result, folder: Path, tiny_data: Path, tiny_bundle_store: Path, out: Path
) -> None:
    before = (folder / "scores.csv").read_bytes()
    (folder / "scores.csv").write_text("old")
    assert run(tiny_data, tiny_bundle_store, out).stdout == evaluated.stdout
    assert (folder / "scores.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--category", "tinny"], "error: no model of category 'tinny' in "),
        (["--data", "nowhere"], "error: there is no data folder nowhere"),
        (["--models", "nowhere"], "error: no model of category 'tiny' in nowhere; there are: none"),
        (["--device", "cuda:99"], "error: 'cuda:99' was asked for, but torch sees "),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_exits_1(
    tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    result = run(tiny_data, tiny_bundle_store, tmp_path / "out", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_good_pictures_alone_give_the_false_rejects(
    tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    shutil.rmtree(data / "tiny/test/scratch")
    result = run(data, tiny_bundle_store, tmp_path / "out")
    assert result.exit_code == 0
    assert "image AUROC not measured" in result.stdout
    assert "of good parts rejected" in result.stdout
    assert "of defective parts passed" not in result.stdout


def test_a_picture_that_cannot_be_read_is_named(
    tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "tiny/test/scratch/003.png").write_text("no picture")
    result = run(data, tiny_bundle_store, tmp_path / "out")
    assert result.exit_code == 1
    assert "test/scratch/003.png" in result.stderr


def test_a_damaged_model_is_refused(tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path) -> None:
    models = shutil.copytree(tiny_bundle_store, tmp_path / "models")
    weights = resolve(models, "tiny") / "flow.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    result = run(tiny_data, models, tmp_path / "out")
    assert result.exit_code == 1
    assert "its sha256 is not the manifest's" in result.stderr


@pytest.mark.parametrize("options", [["--threads", "0"], ["--threads", "two"], ["surplus"]])
def test_wrong_usage_exits_2(
    tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path, options: list[str]
) -> None:
    assert run(tiny_data, tiny_bundle_store, tmp_path, *options).exit_code == 2
