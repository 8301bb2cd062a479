"""PaDiM and PatchCore beside a published version: same images, same backbone, our metrics.

Each model is fitted on the images that the version's flows were fitted on. The version's held-out images
set each threshold, by the same rule for the same rate. Test images decide nothing.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from flows.fastflow.bundle import image_digests
from flows.fastflow.calibration.conformal import compute_threshold
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import read_image
from flows.fastflow.imaging.resizing import resize
from training.config.load_config import load_config
from training.data.sample import Sample
from training.data.training_images import find_training_images
from training.evaluation.ranking import RankingMetrics
from training.evaluation.summary import metric_values
from training.features.cache import write_header
from training.terminal.progress import Progress

MODELS = ("PaDiM", "PatchCore")
_ENGINE = "torch-cpu-float32"  # their process uses no other device
_PROCESS = Path(__file__).with_name("anomalib_process.py")
_VERSION = "from importlib.metadata import version; print(version('anomalib'))"
# As `flowgauge.keep_freed_memory` does for us. Otherwise each of PatchCore's hundreds of passes over all
# patches pays for gigabytes of fresh pages: a pass over a million patches takes 2.5 s instead of 0.9 s.
_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "THP_MEM_ALLOC_ENABLE": "1"}


class ComparisonError(ValueError):
    """The version cannot be compared."""


@dataclass(frozen=True)
class PeerSettings:
    """Settings of the other models.

    Attributes:
        python: an interpreter that has anomalib; None for this one.
        coreset: share of the patches that PatchCore keeps, in (0, 1].
    """

    python: Path | None
    coreset: float
    threads: int


@dataclass(frozen=True)
class ComparisonPlan:
    """A feasible comparison.

    Attributes:
        fitted, held_out: images of the version's fit and of its calibration.
    """

    peers: PeerSettings
    anomalib: str
    seed: int
    fitted: Sequence[Path]
    held_out: Sequence[Path]


def plan_comparison(
    detector: Detector, bundle: Path, data: Path, category: str, peers: PeerSettings
) -> ComparisonPlan:
    """Check that the other models can be fitted to the same images, before anything slow.

    Raises:
        ComparisonError: anomalib is not installed, or the training images differ.
        DatasetError: the data folder has no such category.
    """
    if not 0 < peers.coreset <= 1:
        raise ComparisonError(f"a coreset is a share of the patches in (0, 1]; got {peers.coreset:g}")
    version = _anomalib_version(_python(peers))
    fitted, held_out = _split(detector, bundle, data, category)
    return ComparisonPlan(
        peers, version, load_config(bundle / "report" / "config.yaml").seed, fitted, held_out
    )


def compare(
    plan: ComparisonPlan, detector: Detector, samples: Sequence[Sample], progress: Progress
) -> list[dict[str, Any]]:
    """Fit and measure the other models.

    Returns:
        Per model its name, the metrics of `training.evaluation.summary.METRICS`, recall and false rejects
        at its threshold, its times and its engine.

    Raises:
        ComparisonError: anomalib fails.
        DatasetError, ImageError: images cannot be read; they are named.
    """
    with tempfile.TemporaryDirectory(prefix="flowgauge-compare-") as name:
        folder = Path(name)
        with progress.stage("images", len(plan.fitted) + len(plan.held_out) + len(samples)) as advance:
            sizes = []
            for part, paths in (
                ("fit", plan.fitted),
                ("calibration", plan.held_out),
                ("test", [sample.path for sample in samples]),
            ):
                sizes = _write_images(folder / f"{part}.npy", detector, paths, advance)
        _write_job(folder, detector, plan)
        progress.say(f"anomalib {plan.anomalib}: {' and '.join(MODELS)} on {len(plan.fitted)} images")
        _run(_python(plan.peers), folder, progress)
        return [
            _measured(folder, model, samples, sizes, detector.calibrator.threshold.target_fpr)
            for model in MODELS
        ]


def _python(peers: PeerSettings) -> Path:
    return peers.python or Path(sys.executable)


def _anomalib_version(python: Path) -> str:
    command = [str(python), "-c", _VERSION]
    try:
        answer = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
    except OSError as error:
        raise ComparisonError(f"{python} cannot be run: {error.strerror}") from error
    if answer.returncode:
        raise ComparisonError(
            f"anomalib is not installed for {python}, and a comparison needs it. Ways to get it:\n"
            "  - pip install anomalib\n"
            "  - apart from FlowGauge: python3 -m venv DIR, DIR/bin/pip install anomalib, and then\n"
            "    --compare-python DIR/bin/python"
        )
    return answer.stdout.strip()


def _split(detector: Detector, bundle: Path, data: Path, category: str) -> tuple[list[Path], list[Path]]:
    """Return the images of the version's fit and of its calibration."""
    config = load_config(bundle / "report" / "config.yaml")
    if config.geometry.fit != "stretch":
        raise ComparisonError(
            f"{bundle.name} takes images by geometry.fit: {config.geometry.fit}; the others know the "
            "input's size alone. Compare a version with geometry.fit: stretch"
        )
    if config.geometry.margin or config.augment.active:
        raise ComparisonError(
            f"{bundle.name} was fitted to changed copies of its images or has margins; the others have "
            "neither. Compare a version without augment and with geometry.margin: 0"
        )
    images = find_training_images(config, data, category)
    recorded = detector.manifest.data
    # The same images under other names would be split differently.
    known = image_digests.read_digests(bundle, detector.manifest)
    # A version that has learned from reviews lists the reviewed images, too.
    others = known is not None and any(images.hashes[i] not in known for i in images.split.seen)
    if others or images.record.model_copy(update={"licence": recorded.licence}) != recorded:
        raise ComparisonError(
            f"the good images of {category} in {data} are not those that {bundle.name} was trained on, or "
            "have other names, so the others cannot be fitted on the same ones; train a new version, or give "
            "the data of that time"
        )
    return [images.paths[i] for i in images.split.fit], images.held_out


def _write_images(
    file: Path, detector: Detector, paths: Sequence[Path], advance: Callable[[int], None]
) -> list[tuple[int, int]]:
    """Write images at the model's input size, (N, H, W, 3) uint8; return their original (height, width)."""
    height, width = detector.manifest.input_size
    geometry = detector.scorer.geometry
    sizes = []
    # Written, not mapped: on a full disk a write fails with an error, a mapped page with a signal.
    with file.open("wb") as opened:
        write_header(opened, np.dtype(np.uint8), (len(paths), height, width, 3))
        for path in paths:
            image = read_image(path, sample_bits=detector.manifest.sample_bits)
            opened.write(resize(image, (height, width), geometry.shrink).tobytes())
            sizes.append((image.shape[0], image.shape[1]))
            advance(1)
    return sizes


def _write_job(folder: Path, detector: Detector, plan: ComparisonPlan) -> None:
    backbone = detector.manifest.backbone
    state = detector.scorer.extractor.layers().backbone.state_dict()
    save_file(
        {key: value.cpu().contiguous() for key, value in state.items()}, folder / "backbone.safetensors"
    )
    job = {
        "backbone": backbone.name,
        "out_indices": backbone.out_indices,
        "channels": backbone.channels,
        "mean": backbone.mean,
        "std": backbone.std,
        "coreset": plan.peers.coreset,
        "threads": plan.peers.threads,
        "seed": plan.seed,
        "models": MODELS,
    }
    (folder / "job.json").write_text(json.dumps(job))


def _run(python: Path, folder: Path, progress: Progress) -> None:
    """Run anomalib's process and print its progress."""
    errors = folder / "errors.txt"
    command = [str(python), str(_PROCESS), str(folder)]
    environment = {**_MEMORY, **os.environ} if os.environ.get("FLOWGAUGE_MALLOC") != "default" else None
    with errors.open("w") as file:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment
        )
        try:
            for line in process.stdout or ():
                if line.startswith(MODELS):
                    progress.say(f"  {line.strip()} ...")
        except BaseException:
            process.kill()
            raise
        finally:
            process.communicate()
    if process.returncode:
        last = (errors.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise ComparisonError(f"anomalib's process ended with {process.returncode}: {last}")


def _measured(
    folder: Path, model: str, samples: Sequence[Sample], sizes: Sequence[tuple[int, int]], target_fpr: float
) -> dict[str, Any]:
    scores: NDArray[np.float64] = np.load(folder / f"{model}-test.npy")
    maps: NDArray[np.float32] = np.load(folder / f"{model}-maps.npy", mmap_mode="r")
    limit = compute_threshold(np.load(folder / f"{model}-calibration.npy"), target_fpr).reject
    ranking = RankingMetrics()
    for sample, size, score, score_map in zip(samples, sizes, scores, maps, strict=True):
        ranking.add(sample, size, float(score), np.asarray(score_map))
    defective = np.array([sample.defect is not None for sample in samples])
    rejected = scores > limit
    return {
        "model": model,
        **metric_values(ranking.compute()),
        "recall": float(rejected[defective].mean()) if defective.any() else None,
        "false_rejects": float(rejected[~defective].mean()) if not defective.all() else None,
        **json.loads((folder / f"{model}.json").read_text()),
        "engine": _ENGINE,
    }
