"""`flowgauge learn`, run as a command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import flowgauge
from flows.fastflow.bundle.bundle import verify
from flows.fastflow.bundle.image_digests import CALIBRATION_IMAGES, read_digests
from flows.fastflow.bundle.models_folder import active_version, delete, resolve, versions
from flows.fastflow.calibration.calibrator import record_threshold
from flows.fastflow.detector import Detector
from flows.fastflow.files.plain_files import file_hashes
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.learning.reviewed import find_learned
from tests.conftest import picture, png
from tests.training.evaluation.comparison.stand_in import interpreter
from training.evaluation.comparison.compare import PeerSettings, plan_comparison

Run = Callable[..., Result]


@pytest.fixture
def defects(tmp_path: Path) -> Path:
    """Eight images of defective parts that no version has seen, in a folder by kind."""
    folder = tmp_path / "reviewed/scratch"
    folder.mkdir(parents=True)
    for i in range(8):
        (folder / f"{i}.png").write_bytes(png(picture(7000 + i, defect=True)))
    return folder.parent


@pytest.fixture
def run(store: Path, defects: Path) -> Run:
    def learn(*arguments: str, images: Path = defects) -> Result:
        where = ["--models", str(store), "--category", "tiny", "--defects", str(images)]
        where += ["--device", "cpu", "--threads", "1"]  # as in all tests
        return CliRunner().invoke(flowgauge.app, ["learn", *where, *arguments])

    return learn


def refusal(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    return " ".join(result.stderr.replace("│", " ").split())


def learned(run: Run, *arguments: str) -> dict[str, object]:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_new_version_scores_defects_higher_and_keeps_its_promise(run: Run, store: Path) -> None:
    before = active_version(store, "tiny")
    told = learned(run)
    assert (told["from_version"], active_version(store, "tiny")) == (before, before)
    folder = resolve(store, "tiny", str(told["version"]))
    manifest, old = verify(folder), verify(resolve(store, "tiny", before))
    assert manifest.learned is not None
    assert manifest.learned.model_dump() == told["learned"]
    assert (manifest.learned.defects, manifest.learned.good) == (8, old.data.n_fit)
    assert manifest.thresholds["float32"].n_calibration == len(old.calibration.scores)
    assert manifest.calibration.scores != old.calibration.scores
    # Further defects, against the deviation of good images.
    plain, new = (Detector.load(resolve(store, "tiny", v), device="cpu") for v in (before, folder.name))
    images = [picture(8000 + i, defect=True) for i in range(8)]
    rise = [b.score - a.score for a, b in zip(plain.predict(images), new.predict(images), strict=True)]
    added = max(manifest.calibration.scores) - max(old.calibration.scores)
    assert sum(rise) / len(rise) > added


def test_learning_again_replaces_what_was_learned(run: Run, store: Path, defects: Path) -> None:
    first = learned(run)
    assert f"{first['version']} has learned from these images already" in refusal(run())
    (defects / "scratch/0.png").unlink()
    again = learned(run, "--version", str(first["version"]))
    assert (first["replaced"], again["replaced"]) == (None, first["learned"])
    manifest = verify(resolve(store, "tiny", str(again["version"])))
    delete(store, "tiny", manifest.version)
    fresh = verify(resolve(store, "tiny", str(learned(run)["version"])))
    assert (fresh.learned, fresh.thresholds) == (manifest.learned, manifest.thresholds)
    assert (fresh.calibration, fresh.golden) == (manifest.calibration, manifest.golden)


def test_version_of_another_rate_learns_from_the_same_images(run: Run, store: Path) -> None:
    manifest = verify(resolve(store, "tiny"))
    first = learned(run)
    record = verify(resolve(store, "tiny", str(first["version"]))).learned
    assert record is not None
    assert find_learned(store, manifest, record.reviews) == first["version"]
    thresholds = {"float32": record_threshold(manifest.calibration, 0.2)}
    other = manifest.model_copy(update={"thresholds": thresholds})
    assert find_learned(store, other, record.reviews) is None


def test_known_images_are_refused(run: Run, store: Path, defects: Path, tiny_data: Path) -> None:
    fitted = next((tiny_data / "tiny/train/good").glob("*.png"))
    (defects / "known.png").write_bytes(fitted.read_bytes())
    assert "known.png as a good part" in refusal(run())
    (defects / "known.png").write_bytes(b"no image")
    assert "known.png: The file is not a PNG" in refusal(run())
    assert len(versions(store, "tiny")) == 1


def test_copies_in_other_files_are_left_out(
    run: Run, store: Path, defects: Path, tmp_path: Path, tiny_data: Path
) -> None:
    bundle = resolve(store, "tiny")
    calibrated = read_digests(bundle, verify(bundle), CALIBRATION_IMAGES)
    assert calibrated is not None
    train = sorted((tiny_data / "tiny/train/good").glob("*.png"))
    known = dict(zip(train, file_hashes(train), strict=True))
    fitted, held_out = (
        next(path for path, sha256 in known.items() if (sha256 in calibrated) is use) for use in (False, True)
    )
    good = tmp_path / "good"
    good.mkdir()
    (good / "new.png").write_bytes(png(picture(9000)))
    first = learned(run, "--good", str(good))["threshold"]
    for folder, image in (
        (defects, fitted),
        (defects, held_out),
        (defects, defects / "scratch/0.png"),
        (good, defects / "scratch/3.png"),
        (good, held_out),
    ):
        (folder / f"copy of {image.parent.name} {image.name}").write_bytes(image.read_bytes() + b"\n")
    again = learned(run, "--good", str(good))
    assert again["threshold"] == first
    record = verify(resolve(store, "tiny", str(again["version"]))).learned
    assert record is not None
    assert (record.defects, record.good, record.copies) == (8, 23, 5)
    for i in range(1, 8):
        (defects / f"scratch/{i}.png").unlink()
    assert "got 1 and 24; left out as copies of each other or of training images: 4" in refusal(
        run("--good", str(good))
    )


def test_image_without_a_score_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    describing = Scorer.describing

    def describing_nan(scorer: Scorer) -> Scorer:
        made = describing(scorer)
        made.head.gaussian.get_buffer("mean_0").fill_(float("nan"))
        return describing(made)

    monkeypatch.setattr(Scorer, "describing", describing_nan)
    assert "scratch/0.png: the model's energies of an image are not numbers" in refusal(run())


def test_too_few_defects_are_refused(run: Run, defects: Path) -> None:
    for i in range(4):
        (defects / f"scratch/{i}.png").unlink()
    assert "learning needs 5 defects" in refusal(run())


def test_learned_images_cannot_calibrate(run: Run, store: Path, tmp_path: Path) -> None:
    good = tmp_path / "false rejects"
    good.mkdir()
    (good / "0.png").write_bytes(png(picture(9000)))
    version = str(learned(run, "--good", str(good))["version"])
    calibrate = ["calibrate", "--models", str(store), "--category", "tiny", "--version", version]
    result = CliRunner().invoke(
        flowgauge.app, [*calibrate, "--images", str(good), "--device", "cpu", "--threads", "1"]
    )
    assert result.exit_code == 1, result.output
    assert "The model was fitted to 0.png" in result.output


def test_learned_version_can_be_compared(
    run: Run, store: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = resolve(store, "tiny", str(learned(run)["version"]))
    peers = PeerSettings(interpreter(tmp_path_factory.mktemp("stand-in")), 0.01, 1)
    plan = plan_comparison(Detector.load(folder, device="cpu"), folder, tiny_data, "tiny", peers)
    assert len(plan.fitted) == 22
