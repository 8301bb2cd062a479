"""The comparison: the run's split, the detector's pixels, our metrics, and its refusals.

anomalib itself is large, so that `stand_in.py` stands in for it; where it is installed, it is tried too.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from flows.fastflow.calibration.conformal import compute_threshold
from flows.fastflow.detector import Detector
from flows.fastflow.files.plain_files import file_hashes
from flows.fastflow.imaging.decoder import read_image
from flows.fastflow.imaging.resizing import resize
from tests.training.evaluation.comparison.stand_in import interpreter
from tests.training.evaluation.metrics.maps import pixel_figures
from training.config.run_config import RunConfig
from training.data.layout import test_samples as samples_of
from training.data.sample import Sample
from training.data.split import split, without_copies
from training.evaluation.comparison.compare import (
    ComparisonError,
    ComparisonPlan,
    PeerSettings,
    compare,
    plan_comparison,
)
from training.evaluation.metrics.image_metrics import image_auroc
from training.evaluation.summary import METRICS
from training.terminal.progress import Silent


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def samples(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("masks")
    found = []
    for sample in samples_of(tiny_data, "tiny"):
        mask = None
        if sample.defect:
            mask = folder / sample.path.name
            cv2.imwrite(str(mask), (read_image(sample.path).min(2) > 200).astype(np.uint8) * 255)
        found.append(Sample(sample.path, sample.defect, mask))
    return found


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return interpreter(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture(scope="module")
def ready(
    detector: Detector, bundle: Path, tiny_data: Path, python: Path
) -> Callable[[float], ComparisonPlan]:
    return lambda coreset: plan_comparison(
        detector, bundle, tiny_data, "tiny", PeerSettings(python, coreset, 1)
    )


def test_peers_get_the_same_split_and_pixels(
    detector: Detector,
    tiny_data: Path,
    samples: list[Sample],
    ready: Callable[[float], ComparisonPlan],
    tiny_config: RunConfig,
) -> None:
    progress = Lines()
    rows = compare(ready(0.01), detector, samples, progress)
    assert [row["model"] for row in rows] == ["PaDiM", "PatchCore"]
    assert progress.lines == [
        "anomalib 9.9: PaDiM and PatchCore on 22 images",
        *(f"  {model}: {what} ..." for model in ("PaDiM", "PatchCore") for what in ("fit", "score")),
    ]

    # The stand-in's model once more, from the run's own split.
    good = sorted((tiny_data / "tiny/train/good").iterdir())
    paths, _ = without_copies(good, file_hashes(good))
    parts = split(len(paths), tiny_config.calibration.fraction, tiny_config.seed)

    def features(path: Path) -> NDArray[np.float32]:
        return np.asarray(detector.scorer.features([resize(read_image(path), (64, 64))])[0][0])

    mean = np.mean([features(paths[i]) for i in parts.fit], axis=0)

    def score_map(path: Path) -> NDArray[np.float32]:
        far = np.square(features(path) - mean).mean(0)
        up = F.interpolate(torch.from_numpy(far)[None, None], size=(64, 64), mode="bilinear")
        return np.asarray(up[0, 0])

    maps = [score_map(s.path) for s in samples]
    truth = [s.defect is not None for s in samples]
    scores = [float(m.max()) for m in maps]
    limit = compute_threshold([float(score_map(paths[i]).max()) for i in parts.calibration], 0.1).reject
    masks = [
        read_image(s.mask).max(2) > 127 if s.mask else np.zeros((64, 64), dtype=np.bool_) for s in samples
    ]
    for row in rows:
        assert row["image_auroc"] == pytest.approx(image_auroc(truth, scores), abs=1e-9)
        assert row["aupro_0.3"] == pytest.approx(pixel_figures(maps, masks).aupro[0.3], abs=1e-4)
        assert row["recall"] == sum(s > limit for s, t in zip(scores, truth, strict=True) if t) / 8
        assert row["false_rejects"] == sum(s > limit for s, t in zip(scores, truth, strict=True) if not t) / 8
        assert row["fit_seconds"] > 0
        assert row["milliseconds"] > 0
        assert row["engine"] == "torch-cpu-float32"
        assert set(METRICS) < set(row)


def test_missing_anomalib_tells_how_to_install_it(
    detector: Detector, bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    if importlib.util.find_spec("anomalib"):
        pytest.skip("anomalib is installed here")
    for python in (None, interpreter(tmp_path, package=False)):
        with pytest.raises(ComparisonError, match=r"anomalib is not installed for .*(?s:.*)--compare-python"):
            plan_comparison(detector, bundle, tiny_data, "tiny", PeerSettings(python, 0.01, 1))


def test_failure_of_the_process_is_reported(
    detector: Detector, samples: list[Sample], ready: Callable[[float], ComparisonPlan], silent: Silent
) -> None:
    with pytest.raises(ComparisonError, match="ended with 1: RuntimeError: half a coreset is too much"):
        compare(ready(0.5), detector, samples, silent)
