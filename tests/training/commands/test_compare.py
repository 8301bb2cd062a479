"""`flowgauge compare`: decisions that change between two versions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import flowgauge
from flows.fastflow.bundle.models_folder import active_version, resolve, versions
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import read_image
from training.config.run_config import RunConfig
from training.run import train
from training.terminal.progress import Silent


@pytest.fixture(scope="module")
def models(
    tiny_bundle_store: Path,
    tiny_data: Path,
    tiny_config: RunConfig,
    silent: Silent,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A models folder with an active version and a candidate for a higher rate, fitted to other images."""
    root = tmp_path_factory.mktemp("compare")
    models = shutil.copytree(tiny_bundle_store, root / "models")
    calibration = tiny_config.calibration.model_copy(update={"target_fpr": 0.3})
    config = tiny_config.model_copy(update={"seed": 1, "calibration": calibration})
    where: dict[str, Any] = {"models": models, "runs": root / "runs", "resume": False}
    train(config, tiny_data, "tiny", **where, progress=silent, make_active=False)
    return models


@pytest.fixture(scope="module")
def candidate(models: Path) -> str:
    [other] = {*versions(models, "tiny")} - {active_version(models, "tiny")}
    return other


def run(data: Path, models: Path, version: str, *options: str) -> Result:
    arguments = ["compare", "--data", str(data), "--category", "tiny", "--models", str(models)]
    return CliRunner().invoke(flowgauge.app, [*arguments, "--version", version, "--threads", "1", *options])


def test_changed_decisions_are_those_of_the_versions(tiny_data: Path, models: Path, candidate: str) -> None:
    result = run(tiny_data, models, candidate, "--progress=json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert (told["event"], told["good"], told["defective"]) == ("result", 8, 8)
    folders = [resolve(models, "tiny", told[name]["version"]) for name in ("before", "after")]
    assert folders == [resolve(models, "tiny"), models / "tiny" / candidate]
    expected, rejected = {}, {"before": 0, "after": 0}
    detectors = [Detector.load(folder, device="cpu") for folder in folders]
    for path in sorted((tiny_data / "tiny/test").glob("*/*.png")):
        before, after = (detector.predict([read_image(path)])[0] for detector in detectors)
        for name, one in (("before", before), ("after", after)):
            rejected[name] += path.parent.name == "good" and one.decision == "REJECT"
        if before.decision != after.decision:
            expected[path.relative_to(tiny_data / "tiny").as_posix()] = [before.score, after.score]
    assert expected  # else nothing is compared
    both = ("before", "after")
    found = {image["path"]: [image[name]["score"] for name in both] for image in told["images"]}
    assert found == {path: pytest.approx(scores, rel=1e-4) for path, scores in expected.items()}
    assert told["changed"] == len(expected)
    for name in ("before", "after"):
        one = told[name]
        assert one["overkill"] == one["rejected_good"] / 8
        assert one["escape"] == one["passed_defective"] / 8
        assert one["calibrated_good"] == 0
        assert one["rejected_good"] == rejected[name]
    text = run(tiny_data, models, candidate).stdout
    assert f"after  {candidate}, threshold " in text
    assert f"decisions that change: {len(expected)}\n" in text


def test_images_of_either_fit_are_left_out(
    tiny_data: Path, models: Path, candidate: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data/tiny"
    shutil.copytree(tiny_data / "tiny/train/good", folder / "test/good")
    shutil.copytree(tiny_data / "tiny/train/good", folder / "train/good")
    told = json.loads(run(folder.parent, models, candidate, "--progress=json").stdout.splitlines()[-1])
    assert 0 < told["good"] < 10
    assert [told[name]["calibrated_good"] for name in ("before", "after")] == [told["good"]] * 2
    assert (told["defective"], told["after"]["escape"], told["after"]["image_auroc"]) == (0, None, None)


def test_version_beside_itself_is_refused(tiny_data: Path, models: Path) -> None:
    active = active_version(models, "tiny")
    assert active is not None
    result = run(tiny_data, models, active)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: tiny/{active} would be compared with itself")
