"""`flowgauge evaluate`: printed results and written files."""

import csv
import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner, Result

import flowgauge
from flows.fastflow.bundle.models_folder import resolve
from flows.fastflow.calibration.conformal import false_reject_band
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import read_image
from tests.flows.fastflow.manifests import edit
from tests.training.evaluation.comparison.stand_in import interpreter
from training.evaluation.metrics.image_metrics import image_f1_max, image_recall


def run(data: Path, models: Path, out: Path, *options: str, category: str | None = "tiny") -> Result:
    arguments = ["evaluate", "--data", str(data), *(["--category", category] if category else [])]
    arguments += ["--models", str(models), "--out", str(out), "--threads", "1"]  # as in all tests
    return CliRunner().invoke(flowgauge.app, [*arguments, *options])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluations")


@pytest.fixture(scope="module")
def evaluated(tiny_data: Path, tiny_bundle_store: Path, out: Path) -> Result:
    return run(tiny_data, tiny_bundle_store, out)


@pytest.fixture(scope="module")
def folder(evaluated: Result, tiny_bundle_store: Path, out: Path) -> Path:
    return out / "tiny" / resolve(tiny_bundle_store, "tiny").name


@pytest.fixture
def few(tiny_data: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own, with three test images of each kind, for what any of them show."""
    data = shutil.copytree(tiny_data, tmp_path / "data")
    for path in (data / "tiny/test").glob("*/*.png"):
        if int(path.stem) > 2:
            path.unlink()
    return data


def measured(data: Path, models: Path, out: Path) -> tuple[str, dict[str, Any], Path]:
    result = run(data, models, out)
    assert result.exit_code == 0, result.output
    folder = out / "tiny" / resolve(models, "tiny").name
    return result.stdout, json.loads((folder / "summary.json").read_text()), folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_result_is_an_event(few: Path, tiny_bundle_store: Path, tmp_path: Path) -> None:
    result = run(few, tiny_bundle_store, tmp_path, "--progress=json")
    told = json.loads(result.stdout.splitlines()[-1])
    [summary] = tmp_path.glob("tiny/*/summary.json")
    assert (told["event"], told["summary"]) == ("result", json.loads(summary.read_text()))
    assert told["report"] == str(summary.parent / "report.html")


def test_it_prints_the_figures(evaluated: Result, tiny_bundle_store: Path, folder: Path, out: Path) -> None:
    assert evaluated.exit_code == 0, evaluated.output
    bundle = resolve(tiny_bundle_store, "tiny")
    summary = json.loads((folder / "summary.json").read_text())
    lines = evaluated.stdout.splitlines()
    assert lines.pop(0) == "data ..."
    assert lines[:2] == ["evaluate ...", f"{bundle}: 8 good and 8 defective test images"]
    assert lines[2] == f"image AUROC {summary['image_auroc']:.3f}"
    assert lines[3] == (
        f"image AP {summary['image_average_precision']:.3f}, F1-max {summary['image_f1_max']:.3f}, "
        f"recall at 1 % of the good test images {100 * summary['recall_at_1_percent']:.1f}%"
    )
    assert lines[4] == "pixel AUROC not measured: no defect has a mask"
    assert re.fullmatch(
        r"at threshold \d+\.\d{4}: \d+\.\d\d% of good parts rejected"
        r"; chance gives 0 to \d of 8, 95 %",
        lines[5],
    )
    assert lines.pop(6) == (
        "promised: at most 9.09% of good parts on average; with 95 % confidence at most 25.89% "
        "(asked for 10.00%, certified)"
    )
    assert lines[6] == f"{summary['escapes']:.2%} of defective parts passed"
    assert lines[7].split() == ["defect", "images", "image", "AUROC", "recall"]
    assert lines[8].split() == ["scratch", "8", f"{summary['image_auroc']:.3f}", f"{summary['recall']:.1%}"]
    assert lines[9] == "thresholds of other rates, with 95 % intervals of what was seen:"
    assert " ".join(lines[10].split()) == "asked promised 95 % confidence good rejected defective rejected"
    assert [line.split()[0] for line in lines[11:16]] == ["0.50%", "1.00%", "2.00%", "5.00%", "10.00%"]
    of_10_percent = summary["operating_points"][-1]
    shares = [of_10_percent["false_rejects"], of_10_percent["recall"]]
    assert lines[15].split(maxsplit=1)[1].split() == [
        "9.09%",
        "25.89%",
        *" ".join(f"{s['value']:.1%} ({s['low']:.1%} to {s['high']:.1%})" for s in shares).split(),
    ]
    assert lines[16:] == [
        f"scores of every image: {folder / 'scores.csv'}",
        f"report: {folder / 'report.html'}",
        f"all categories: {out / 'index.html'}",
    ]


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
        [prediction] = detector.predict([read_image(path)])
        assert float(row["score"]) == prediction.score
        assert float(row["p_value"]) == prediction.p_value
        assert row["decision"] == prediction.decision


def test_the_summary_follows_from_the_scores(folder: Path, tiny_data: Path, tiny_bundle_store: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    found = rows(folder)
    defective = [row["defect"] != "" for row in found]
    rejected = [row["decision"] == "REJECT" for row in found]
    scores = [float(row["score"]) for row in found]
    auroc = roc_auc_score(defective, scores)
    false_rejects, recall = sum(rejected[:8]) / 8, sum(rejected[8:]) / 8
    expected = {
        "category": "tiny",
        "version": resolve(tiny_bundle_store, "tiny").name,
        "good": 8,
        "defective": 8,
        "data": str(tiny_data / "tiny"),
        "compared_with": 32,
        "image_auroc": auroc,
        "image_average_precision": average_precision_score(defective, scores),
        "image_f1_max": image_f1_max(defective, scores).value,
        "recall_at_1_percent": image_recall(defective, scores, 0.01),
        "false_rejects": false_rejects,
        "escapes": 1 - recall,
        "recall": recall,
        "expected_rejects": list(false_reject_band(10, 8, 0.1, confidence=0.95)),
        "target_fpr": 0.1,
        "certified": True,
        "achievable_fpr": pytest.approx(1 / 11),
        "fpr_at_95_confidence": pytest.approx(1 - 0.05**0.1),
        "defects": {"scratch": {"count": 8, "image_auroc": auroc, "recall": recall}},
        "engine": "torch-cpu-float32",
        **dict.fromkeys(["pixel_auroc", "aupro_0.3", "aupimo", "reviews"]),
        **dict.fromkeys(["seen", "copies", "same_parts", "passed_over", "with_mask"], 0),
    }
    assert {name: summary[name] for name in expected} == expected
    points = {point["target_fpr"]: point for point in summary["operating_points"]}
    assert list(points) == [0.005, 0.01, 0.02, 0.05, 0.1]
    assert points[0.1]["false_rejects"]["value"] == false_rejects
    assert points[0.1]["recall"]["value"] == recall
    assert abs(datetime.now(UTC) - datetime.fromisoformat(summary["evaluated"])) < timedelta(hours=1)


def test_pixels_are_measured_with_masks_and_odd_names(
    few: Path, tiny_bundle_store: Path, tmp_path: Path
) -> None:
    data = few.rename(tmp_path / 'it\'s, "data" [1]')
    masks = data / "tiny/ground_truth/scratch"
    masks.mkdir(parents=True)
    for path in (data / "tiny/test/scratch").iterdir():
        cv2.imwrite(
            str(masks / f"{path.stem}_mask.png"), 255 * (read_image(path).min(2) > 200).astype(np.uint8)
        )
    said, summary, folder = measured(data, tiny_bundle_store, tmp_path)
    assert summary["pixel_auroc"] > 0.9
    assert 0 < summary["aupro_0.05"] < summary["aupro_0.3"] <= 1
    aupro = f"AUPRO {summary['aupro_0.3']:.3f} up to 30 % and {summary['aupro_0.05']:.3f} up to 5 %"
    for line in (f"pixel AUROC {summary['pixel_auroc']:.3f}\n", aupro, "AUPIMO not measured, too few good"):
        assert line in said
    assert "<h2>Where are the defects?</h2>" in (folder / "report.html").read_text()
    assert all(Path(row["path"]).is_file() for row in rows(folder))


def test_review_band_is_reported_and_recalibration_ignored(
    few: Path, tiny_bundle_store: Path, tmp_path: Path
) -> None:
    since = "a server decides by a calibration that was made since; here the version's own does"
    models = tmp_path / "models"
    shutil.copytree(tiny_bundle_store, models)
    version = resolve(models, "tiny")
    edit(version, lambda document: document.update(review_fpr=0.9))
    said, summary, folder = measured(few, models, tmp_path / "out")
    assert since not in said.splitlines()
    found = rows(folder)
    good = [row["decision"] for row in found[:3]].count("REVIEW") / 3
    defective = [row["decision"] for row in found[3:]].count("REVIEW") / 3
    threshold = Detector.load(version, device="cpu").calibrator.threshold_at(0.9).reject
    assert good > 0
    assert (
        f"review band from {threshold:.4f}: {good:.2%} of good parts and {defective:.2%} of defective parts "
        "go to a person (asked for at most 90.00% of good parts rejected or reviewed)"
    ) in said.splitlines()
    shares = {"good": good, "defective": defective}
    assert summary["reviews"] == {"review_fpr": 0.9, "threshold": threshold, **shares}
    renewed = models / "tiny/calibrations" / version.name
    renewed.mkdir(parents=True)
    (renewed / "openvino-bfloat16.json").write_text("of another engine")
    assert "made since" not in run(few, models, tmp_path / "out").stdout
    (renewed / f"float32.{'0' * 16}.json").write_text("of a station")
    after = run(few, models, tmp_path / "out")
    assert since.replace("calibration", "calibration of a station") in after.stdout.splitlines()
    (renewed / "float32.json").write_text("what it says has no part in it")
    after = run(few, models, tmp_path / "out")
    assert since in after.stdout.splitlines()
    assert rows(folder) == found


def test_seen_images_and_copies_are_left_out(
    folder: Path, tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path
) -> None:
    """Else scores would flatter, or count twice in every share and narrow the intervals."""
    usual = [row["score"] for row in rows(folder)]
    data = shutil.copytree(tiny_data, tmp_path / "data")
    good, test = sorted((data / "tiny/train/good").iterdir()), data / "tiny/test"
    for path in good[4:]:  # to fit or to calibrate with, under whatever name
        shutil.copy(path, test / "good" / f"again-{path.name}")
    for kind in ("good", "scratch"):
        for i in range(3):
            shutil.copy(test / kind / "000.png", test / kind / f"again-{i}.png")
    near = cv2.imencode(".png", read_image(good[3])[..., ::-1] ^ 1)[1].tobytes()
    (test / "good/near.png").write_bytes(near)
    printed, summary, folder = measured(data, tiny_bundle_store, tmp_path / "out")
    assert "9 good and 8 defective test images" in printed
    assert "left out: 28 test images that the model was fitted to" in printed
    assert "left out: 6 test images that are copies of others, byte for byte" in printed
    named = f"test/good/near.png ~ train/good/{good[3].name}"
    said = (
        "1 test image nearly is a training image, saved anew or of the same part: figures on such "
        f"flatter ({named}; looked for among 60)"
    )
    assert said in printed
    counts = {name: summary[name] for name in ("good", "seen", "copies", "near_copies")}
    assert counts == {"good": 9, "seen": 28, "copies": 6, "near_copies": [named]}
    report = (folder / "report.html").read_text()
    assert "28 more, to which it was fitted" in report
    assert "6 copies of others, byte for byte, are left out" in report
    assert f"{said}." in report
    assert [row["score"] for row in rows(folder) if not row["path"].endswith("near.png")] == usual


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "nowhere"], "error: there is no data folder nowhere"),
        (["--models", "nowhere"], "error: no model of category 'tiny' in nowhere; there are: none"),
        (["--device", "cuda:99"], "error: 'cuda:99' was asked for, but torch sees "),
    ],
)
def test_error_is_one_line_and_exits_with_1(
    tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    result = run(tiny_data, tiny_bundle_store, tmp_path / "out", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(said)
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_category_all_that_have_a_model_are_measured(
    few: Path, tiny_bundle_store: Path, tmp_path: Path
) -> None:
    models, out = shutil.copytree(tiny_bundle_store, tmp_path / "models"), tmp_path / "out"
    for name in ("another", "untrained"):
        shutil.copytree(few / "tiny", few / name)
    (few / "another/test/good/000.png").unlink()
    version = resolve(models, "tiny")
    edit(
        shutil.copytree(version, models / "another" / version.name),
        lambda document: document.update(category="another"),
    )
    shutil.copy(models / "tiny/active", models / "another/active")
    result = run(few, models, out, category=None)
    assert result.exit_code == 0, result.output
    summaries = {
        name: json.loads(next((out / name).rglob("summary.json")).read_text()) for name in ("another", "tiny")
    }
    assert [s["good"] for s in summaries.values()] == [2, 3]
    header, *lines = result.stdout.splitlines()[-4:]
    assert header.split()[:3] == ["category", "image", "AUROC"]
    aurocs = {name: one["image_auroc"] for name, one in summaries.items()}
    aurocs["mean"] = sum(aurocs.values()) / 2
    assert [line.split()[:2] for line in lines] == [[name, f"{x:.3f}"] for name, x in aurocs.items()]
    index = (out / "index.html").read_text()
    for name in summaries:
        assert f'<a href="{name}/{version.name}/report.html">{name}</a>' in index
    assert "untrained" not in index


def test_unusable_files_are_named_before_scoring(
    tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "tiny/test/scratch/003.png").write_text("no image")
    good = max((data / "tiny/test/good").iterdir())
    good.write_bytes(good.read_bytes()[:-100])
    masks = data / "tiny/ground_truth/scratch"
    masks.mkdir(parents=True)
    cv2.imwrite(str(masks / "000_mask.png"), np.full((5, 7), 255, np.uint8))
    result = run(data, tiny_bundle_store, tmp_path / "out")
    assert result.exit_code == 1
    assert "error: 3 test images or masks cannot be used" in result.stderr
    for said in ("test/scratch/003.png", f"test/good/{good.name}", "000_mask.png has size 7x5"):
        assert said in result.stderr
    assert "evaluate ..." not in result.stdout


def test_another_engine_is_measured_by_its_own_calibration(
    tiny_data: Path, tiny_bundle_store: Path, tmp_path: Path
) -> None:
    result = run(tiny_data, tiny_bundle_store, tmp_path / "out", "--precision", "bfloat16")
    assert result.exit_code == 1
    assert "was not calibrated for bfloat16 engines" in result.stderr
    assert "add bfloat16 to calibration.engines" in result.stderr
    assert "`flowgauge train --resume`" in result.stderr
    assert "flowgauge calibrate" not in result.stderr  # an evaluation goes past renewed calibrations
    assert run(tiny_data, tiny_bundle_store, tmp_path / "out", "--precision", "half").exit_code == 2


def test_comparison_is_printed_kept_and_shown(few: Path, tiny_bundle_store: Path, tmp_path: Path) -> None:
    python = interpreter(tmp_path / "stand-in")
    result = run(few, tiny_bundle_store, tmp_path / "out", "--compare", "--compare-python", str(python))
    assert result.exit_code == 0, result.output
    [file] = (tmp_path / "out").rglob("summary.json")
    summary = json.loads(file.read_text())
    ours, padim, patchcore = summary["comparison"]
    assert [row["model"] for row in (ours, padim, patchcore)] == ["FlowGauge", "PaDiM", "PatchCore"]
    assert ours["image_auroc"] == summary["image_auroc"]
    assert ours["recall"] == summary["recall"]
    assert ours["fit_seconds"] > 0
    lines = result.stdout.splitlines()
    at = lines.index("same images, backbone, stages and size; thresholds by the same rule:")
    for line, row in zip(lines[at + 2 : at + 5], (ours, padim, patchcore), strict=True):
        assert line.split()[:2] == [row["model"], f"{row['image_auroc']:.3f}"]
        assert line.split()[-2:] == [f"{row['milliseconds']:.0f}", "torch-cpu-float32"]
        assert row["engine"] == "torch-cpu-float32"
    assert ours["milliseconds"] == summary["milliseconds"]
    assert lines[at + 5].startswith("times: of the fit without reading images (the flow's where the version")
    assert "is left out" not in lines[at + 5]
    assert "<h2>Side by side</h2>" in file.with_name("report.html").read_text()


def test_good_images_alone_give_the_false_rejects(few: Path, tiny_bundle_store: Path, tmp_path: Path) -> None:
    shutil.rmtree(few / "tiny/test/scratch")
    said, *_ = measured(few, tiny_bundle_store, tmp_path / "out")
    assert "image AUROC not measured" in said
    assert "of good parts rejected" in said
    assert "of defective parts passed" not in said
