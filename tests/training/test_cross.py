"""Runs of folds and of several engines: what is fitted to what, what is published, and what it promises."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flows.fastflow import conformal
from flows.fastflow.bundle import FLOW, BundleError, read_manifest, verify
from flows.fastflow.detector import Detector
from flows.fastflow.fit_pictures import load
from flows.fastflow.images import decode, read
from flows.fastflow.models_folder import BACKBONES
from flows.fastflow.plain_files import file_hashes
from tests.flows.fastflow.manifests import edit
from training.config import ConfigError, RunConfig, load_config
from training.cross import final_metrics, fit_heads, folds_of, parts_of
from training.datasets.sample import DatasetError
from training.loop import METRICS, read_metrics
from training.progress import Silent
from training.run import train

Images = dict[str, list[bytes]]


def with_calibration(config: RunConfig, **settings: object) -> RunConfig:
    return RunConfig.model_validate(
        {**config.model_dump(), "calibration": {**config.calibration.model_dump(), **settings}}
    )


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_config: RunConfig, silent: Silent
) -> Callable[[bool], Path]:
    """Trains three folds of the tiny data, for two engines, in one place."""
    root = tmp_path_factory.mktemp("cross")
    config = with_calibration(
        tiny_config, method="cross", folds=3, engines=("float32", "bfloat16"), review_fpr=0.3
    )
    config = config.model_copy(update={"fit": config.fit.model_copy(update={"epochs": 2})})
    return lambda resume: (
        train(
            config,
            tiny_data,
            "tiny",
            models=root / "models",
            runs=root / "runs",
            resume=resume,
            progress=silent,
        ).bundle
    )


@pytest.fixture(scope="module")
def bundle(run: Callable[[bool], Path]) -> Path:
    return run(False)


@pytest.fixture(scope="module")
def good(tiny_data: Path) -> list[Path]:
    return sorted((tiny_data / "tiny" / "train" / "good").iterdir())


class TestFolds:
    def test_every_picture_is_in_one_and_their_sizes_are_nearly_equal(self, tiny_config: RunConfig) -> None:
        config = with_calibration(tiny_config, method="cross", folds=5)
        folds = folds_of(33, config)
        assert folds is not None
        assert sorted(np.bincount(folds).tolist()) == [6, 6, 7, 7, 7]
        again = folds_of(33, config)
        assert np.array_equal(folds, again if again is not None else [])
        other = folds_of(33, config.model_copy(update={"seed": 1}))
        assert other is not None
        assert not np.array_equal(folds, other)

    def test_each_head_is_fitted_to_all_but_its_own(self, tiny_config: RunConfig) -> None:
        folds = folds_of(10, with_calibration(tiny_config, method="cross", folds=3))
        assert folds is not None
        parts = parts_of(10, folds, 0.2, 0)
        assert len(parts) == 3
        for k, part in enumerate(parts):
            assert set(part.calibration) == set(np.flatnonzero(folds == k))
            assert sorted([*part.fit, *part.calibration]) == list(range(10))

    def test_of_split_there_are_none(self, tiny_config: RunConfig) -> None:
        assert folds_of(10, tiny_config) is None
        [part] = parts_of(10, None, 0.2, 0)
        assert (len(part.fit), len(part.calibration)) == (8, 2)

    def test_of_folds_no_share_is_held_out(self, tiny_config: RunConfig) -> None:
        """Ten pictures would be too few to hold out nine tenths."""
        folds = folds_of(10, with_calibration(tiny_config, method="cross", folds=5))
        assert len(parts_of(10, folds, 0.9, 0)) == 5

    @pytest.mark.parametrize(("count", "folds"), [(4, 5), (2, 2), (1, 2)])
    def test_too_few_pictures(self, tiny_config: RunConfig, count: int, folds: int) -> None:
        with pytest.raises(DatasetError, match=f"{count} good pictures are too few for {folds} folds"):
            folds_of(count, with_calibration(tiny_config, method="cross", folds=folds))


class TestBundle:
    def test_keeps_every_head_and_says_what_is_promised(self, bundle: Path, good: list[Path]) -> None:
        manifest = verify(bundle)
        tensors = load_file(bundle / FLOW)
        assert {name.partition(".")[0] for name in tensors} == {"fold_0", "fold_1", "fold_2"}
        one = [name.removeprefix("fold_0.") for name in tensors if name.startswith("fold_0.")]
        assert any(not torch.equal(tensors[f"fold_0.{name}"], tensors[f"fold_1.{name}"]) for name in one)
        assert (manifest.heads, manifest.review_fpr) == (3, 0.3)
        assert len(manifest.calibration.scores) == manifest.data.n_fit == len(good)
        threshold = manifest.thresholds["float32"]
        assert (threshold.guarantee, threshold.certified) == ("cross", False)
        assert threshold.achievable_fpr == pytest.approx(2 * (3 + 2) / (32 + 3))

    def test_each_score_is_of_the_head_that_has_not_seen_the_picture(
        self, bundle: Path, good: list[Path], tiny_config: RunConfig
    ) -> None:
        detector = Detector.load(bundle, device="cpu")
        folds = folds_of(len(good), with_calibration(tiny_config, method="cross", folds=3))
        assert folds is not None
        by_head = [detector.scorer.score([read(path)])[0].by_head for path in good]
        expected = sorted((by_head[i][k], int(k)) for i, k in enumerate(folds))
        calibration = detector.calibrator.calibration
        assert calibration.folds == [k for _, k in expected]
        assert calibration.scores == pytest.approx([score for score, _ in expected], rel=1e-5)

    def test_knows_that_all_pictures_were_fitted_to(self, bundle: Path, good: list[Path]) -> None:
        fitted = load(bundle, read_manifest(bundle))
        assert fitted is not None
        assert all(sha256 in fitted for sha256 in file_hashes(good))

    def test_decides_by_the_cross_conformal_p_value(self, bundle: Path, tiny_images: Images) -> None:
        detector = Detector.load(bundle, device="cpu")
        calibration = detector.calibrator.calibration
        assert calibration.folds is not None
        decisions = set()
        for data in [*tiny_images["good"], *tiny_images["defect"]]:
            [found] = detector.predict([decode(data)])
            assert len(found.by_head) == 3
            at_least = sum(
                s >= found.by_head[k] for s, k in zip(calibration.scores, calibration.folds, strict=True)
            )
            assert found.p_value == (1 + at_least) / 33
            # Of rates of 10 % and, with the review band, 30 %.
            wanted = "REJECT" if found.p_value <= 3 / 33 else "REVIEW" if found.p_value <= 9 / 33 else "PASS"
            assert found.decision == wanted
            decisions.add(found.decision)
        assert decisions == {"PASS", "REVIEW", "REJECT"}

    def test_its_heads_are_each_a_model(self, bundle: Path, tiny_images: Images) -> None:
        scorer = Detector.load(bundle, device="cpu").scorer
        image = decode(tiny_images["defect"][0])
        [together] = scorer.score([image])
        apart = [scorer.with_heads(head).score([image])[0] for head in scorer.heads]
        assert together.by_head == pytest.approx([one.score for one in apart], rel=1e-5)
        assert together.score == pytest.approx(np.mean([one.score for one in apart]), rel=1e-5)
        mean = np.mean([one.score_map for one in apart], axis=0)
        assert np.allclose(together.score_map, mean, rtol=1e-4, atol=1e-5)

    def test_metrics_are_means_over_folds(self, bundle: Path) -> None:
        rows = [json.loads(line) for line in (bundle / "report/metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == [1, 2]
        assert read_manifest(bundle).metrics["held_out_nll"] == pytest.approx(
            np.mean(rows[-1]["held_out_nll"])
        )

    def test_an_epoch_took_what_it_took_all_heads(self, bundle: Path) -> None:
        runs = bundle.parents[2] / "runs" / "tiny"
        heads = [read_metrics(folder) for folder in sorted(runs.glob("*/fold-*"))]
        rows = [json.loads(line) for line in (bundle / "report/metrics.jsonl").read_text().splitlines()]
        assert len(heads) == 3
        for row, of_heads in zip(rows, zip(*heads, strict=True), strict=True):
            assert row["seconds"] == pytest.approx(sum(head["seconds"] for head in of_heads))

    def test_a_killed_run_goes_on_to_the_same_bits(self, run: Callable[[bool], Path], bundle: Path) -> None:
        runs = bundle.parents[2] / "runs" / "tiny"
        [finished] = runs.glob("*/finished.json")
        finished.unlink()
        [checkpoint] = runs.glob("*/fold-2/checkpoint.pt")
        checkpoint.unlink()
        assert (run(True) / FLOW).read_bytes() == (bundle / FLOW).read_bytes()

    def test_as_many_folds_as_heads(self, bundle: Path, tmp_path: Path) -> None:
        document = json.loads((bundle / "manifest.json").read_text())
        for change in (
            {"heads": 2},
            {"heads": 1},
            {"calibration": {**document["calibration"], "folds": None}},
            {"calibration": {**document["calibration"], "folds": [0] * 32}},
        ):
            (tmp_path / "manifest.json").write_text(json.dumps({**document, **change}))
            with pytest.raises(BundleError, match=r"folds|as many"):
                read_manifest(tmp_path)


class TestEngines:
    def test_each_is_calibrated_by_scores_of_its_own(self, bundle: Path, tiny_images: Images) -> None:
        manifest = read_manifest(bundle)
        reduced = manifest.reduced["bfloat16"]
        assert reduced.scores != manifest.calibration.scores
        assert reduced.scores == pytest.approx(manifest.calibration.scores, rel=0.1)
        expected = conformal.threshold(reduced.scores, 0.1, models=3)
        assert manifest.thresholds["bfloat16"].reject == expected.reject
        detector = Detector.load(bundle, device="cpu", precision="bfloat16")
        assert detector.engine == "torch-cpu-bfloat16"
        assert detector.calibrator.threshold == expected
        [found] = detector.predict([decode(tiny_images["good"][0])])
        [exact] = Detector.load(bundle, device="cpu").predict([decode(tiny_images["good"][0])])
        assert found.by_head != exact.by_head
        assert found.by_head == pytest.approx(exact.by_head, rel=0.1)
        assert found.score_map.dtype == np.float32

    def test_one_that_was_not_calibrated_is_refused(self, tiny_bundle_store: Path) -> None:
        [folder] = (tiny_bundle_store / "tiny").glob("2*")
        with pytest.raises(
            BundleError, match=r"`flowgauge calibrate --category tiny --version \S+ --precision bfloat16`"
        ):
            Detector.load(folder, device="cpu", precision="bfloat16")

    def test_golden_pictures_are_replayed_by_it(self, bundle: Path) -> None:
        text = (bundle / "manifest.json").read_text()
        try:
            edit(bundle, lambda d: [golden["reduced"].update(bfloat16=9.0) for golden in d["golden"]])
            Detector.load(bundle, device="cpu", backbones=bundle.parents[1] / BACKBONES)
            with pytest.raises(BundleError, match="golden picture"):
                Detector.load(bundle, device="cpu", precision="bfloat16")
        finally:
            (bundle / "manifest.json").write_text(text)

    @pytest.mark.parametrize(
        "change",
        [
            lambda d: d["thresholds"].pop("bfloat16"),
            lambda d: d["reduced"].clear(),
            lambda d: d["reduced"].update(float32=d["calibration"]),
            lambda d: d["thresholds"]["bfloat16"].update(reject=1e9),
            lambda d: d.update(review_fpr=0.05),
        ],
    )
    def test_manifests_that_contradict_themselves(
        self, bundle: Path, change: Callable[[dict[str, object]], object]
    ) -> None:
        text = (bundle / "manifest.json").read_text()
        try:
            edit(bundle, change)
            with pytest.raises(BundleError):
                verify(bundle)
        finally:
            (bundle / "manifest.json").write_text(text)


class TestMetrics:
    """Of heads that stop at epochs of their own."""

    @staticmethod
    def row(epoch: int, fit: float, validation: float | None) -> dict[str, object]:
        judged = None if validation is None else [validation, validation]
        return {
            "epoch": epoch,
            "fit_nll": [fit, fit + 2],
            "held_out_nll": [2 * fit, 2 * fit],
            "validation_nll": judged,
            "learning_rate": 0.1,
            "seconds": 1.0,
        }

    def write(self, folder: Path, *figures: tuple[float, float | None]) -> None:
        folder.mkdir(exist_ok=True)
        rows = [self.row(epoch, *figure) for epoch, figure in enumerate(figures, 1)]
        (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def test_a_head_counts_with_the_epoch_whose_weights_it_has(self, tmp_path: Path) -> None:
        self.write(tmp_path, (5, 0.5), (4, 0.1), (3, 0.1), (2, 0.2))
        assert final_metrics(tmp_path, 1) == {"fit_nll": 5, "held_out_nll": 8}
        self.write(tmp_path, (5, None), (4, None), (3, None))
        assert final_metrics(tmp_path, 1) == {"fit_nll": 4, "held_out_nll": 6}

    def test_several_count_each_with_its_own(self, tmp_path: Path) -> None:
        self.write(tmp_path / "fold-0", (5, 0.5), (4, 0.1), (3, 0.2))
        self.write(tmp_path / "fold-1", (8, 0.1), (7, 0.3))
        assert final_metrics(tmp_path, 2) == {"fit_nll": (5 + 9) / 2, "held_out_nll": (8 + 16) / 2}

    def test_folds_fitted_with_a_rule_to_stop(self, tmp_path: Path, tiny_config: RunConfig) -> None:
        stopping = {"patience": 1, "fraction": 0.2}
        fit = {"epochs": 20, "batch_size": 4, "learning_rate": 0.05, "threads": 1, "stopping": stopping}
        config = with_calibration(tiny_config, method="cross", folds=3)
        config = RunConfig.model_validate({**config.model_dump(), "fit": fit})
        folds = folds_of(24, config)
        parts = [part.with_validation(0.2, 0) for part in parts_of(24, folds, 0.2, 0)]
        features = [np.random.default_rng(0).normal(size=(24, 6, 4, 4)).astype(np.float32)]
        fit_heads(
            config,
            features,
            parts,
            device=torch.device("cpu"),
            folder=tmp_path,
            identity="folds",
            resume=False,
            on_batch=lambda _: None,
            on_epoch=lambda *_: None,
        )
        each = [read_metrics(tmp_path / f"fold-{k}") for k in range(3)]
        longest = max(map(len, each))
        assert min(map(len, each)) < longest < 20  # each stopped, and not all at the same epoch
        means = read_metrics(tmp_path)
        assert [mean["epoch"] for mean in means] == list(range(1, longest + 1))
        for epoch, mean in enumerate(means):  # of those that went so far
            rows = [of_one[epoch] for of_one in each if len(of_one) > epoch]
            for name in ("fit_nll", "validation_nll"):
                assert mean[name] == pytest.approx(np.mean([row[name] for row in rows], axis=0))
        spent = sum(row["seconds"] for of_one in each for row in of_one)
        assert sum(mean["seconds"] for mean in means) == pytest.approx(spent)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ("review_fpr: 0.01", "must be more than target_fpr"),
        ("method: jackknife", "method"),
        ("folds: 1", "folds"),
        ("folds: 21", "folds"),
        ("engines: [bfloat16]", "must name float32"),
        ("engines: [float32, float32]", "each once"),
        ("engines: [float32, int8]", "engines"),
        ("engines: []", "engines"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: str, reason: str) -> None:
    (tmp_path / "run.yaml").write_text(f"calibration: {{{settings}}}\n")
    with pytest.raises(ConfigError, match=reason):
        load_config(tmp_path / "run.yaml")
