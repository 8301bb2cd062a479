"""Accuracy over categories, backbones and seeds, beside anomalib's PatchCore and PaDiM.

    python -m bench.accuracy --set ../mvtec bottle --set ../mvtec grid --presets tf_efficientnet_lite0
    python -m bench.accuracy --set ../mvtec bottle --size 384 --compare --compare-python PYTHON
    python -m bench.accuracy --set ../mvtec bottle --starter --images 10 20 50

Trains and evaluates a model for each set, preset and seed. The report has AUROC and recall of images, and
AUROC, AUPRO, AP and AUPIMO of pixels, after the last epoch. Training never reads a test image. With
--compare, anomalib's models are fitted to the first seed's images, with the same backbone, stages and size.
With --images, each model learns from so many images, drawn by seed.

An interrupted run continues where it stopped. Reports go to bench-results/accuracy.
"""

import argparse
import itertools
import json
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bench.report import RESULTS, Report, Table
from examples.processes import run
from flows.fastflow.backbones.presets import DEFAULT_BACKBONE
from flows.fastflow.bundle import models_folder
from training.data.layout import train_images
from training.evaluation.evaluate import SUMMARY

FIGURES = {
    "image_auroc": "image AUROC",
    "recall_at_1_percent": "recall at 1 %",
    "recall": "recall at the threshold",
    "false_rejects": "good parts rejected",
    "pixel_auroc": "pixel AUROC",
    "aupro_0.3": "AUPRO",
    # Stricter: a map can gain in the two above and lose in these.
    "pixel_average_precision": "pixel AP",
    "aupimo": "AUPIMO",
    "milliseconds": "ms per image",
}
Summary = dict[str, Any]


def main() -> int:
    """Run the missing trainings and evaluations, and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.accuracy",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--set", nargs=2, action="append", required=True, metavar=("DIR", "CATEGORY"), help="repeatable"
    )
    parser.add_argument("--presets", nargs="+", default=[DEFAULT_BACKBONE])
    parser.add_argument("--size", type=int, help="side of the input in pixels (default: by preset or images)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--config", type=Path, help="YAML of a run; the options override it")
    parser.add_argument("--images", type=int, nargs="+", default=[None], help="good images to learn from")
    parser.add_argument("--starter", action="store_true", help="fit starters, without flows")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--compare-python", type=Path)
    parser.add_argument("--compare-coreset", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy")
    options = parser.parse_args()
    report = Report("accuracy", {"seeds": options.seeds, "size": options.size or "the preset's"})
    for preset, images in itertools.product(options.presets, options.images):
        parts = (preset, options.size, "starter" if options.starter else None, images)
        name = "-".join(str(part) for part in parts if part is not None)
        found: dict[str, list[Summary]] = {}
        for data, category in options.set:
            for seed in options.seeds:
                place = options.out / name / category / str(seed)
                summary = _evaluated(options, preset, images, place, Path(data), category, seed)
                found.setdefault(category, []).append(summary)
        report.tables.append(table(name, found))
        report.figures[name] = found
    return report.write(options.out)


def _evaluated(
    options: argparse.Namespace,
    preset: str,
    images: int | None,
    place: Path,
    data: Path,
    category: str,
    seed: int,
) -> Summary:
    """Return a model's summary; train and evaluate it in its place unless that is done."""
    place.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load(options.config.read_text()) if options.config else {}
    if options.size is not None:
        settings["input_size"] = [options.size, options.size]
    (place / "run.yaml").write_text(yaml.safe_dump(settings))
    models = place / "models"
    # A preset fixes the input size; the default backbone without one chooses it by the images.
    chosen = () if preset == DEFAULT_BACKBONE else ("--preset", preset)
    which = ("--category", category, "--models", str(models))
    learned = data if images is None else _drawn(images, place / "data", data, category, seed)
    starter = ("--starter",) if options.starter else ()
    run(
        "train", "--data", str(learned), *which, *starter, *chosen, "--resume",
        "--runs", str(options.out / "runs"),
        "--config", str(place / "run.yaml"), "--seed", str(seed), "--threads", str(options.threads),
    )  # fmt: skip
    compare: list[str] = []
    if options.compare and seed == options.seeds[0]:
        compare = ["--compare", "--compare-coreset", str(options.compare_coreset)]
        if options.compare_python:
            compare += ["--compare-python", str(options.compare_python)]
    summary = place / category / models_folder.resolve(models, category).name / SUMMARY
    if not summary.exists() or (compare and "comparison" not in json.loads(summary.read_text())):
        run(
            "evaluate", "--data", str(data), *which, "--threads", str(options.threads),
            "--out", str(place), *compare,
        )  # fmt: skip
    found: Summary = json.loads(summary.read_text())
    return found


def _drawn(count: int, folder: Path, data: Path, category: str, seed: int) -> Path:
    """Make a data folder of some of the training images, drawn by seed."""
    paths = train_images(data, category)
    good = folder / category / "good"
    good.mkdir(parents=True, exist_ok=True)
    for i in np.random.default_rng(seed).permutation(len(paths))[:count]:
        shutil.copy(paths[i], good)
    return folder


def table(title: str, by_category: Mapping[str, Sequence[Summary]]) -> Table:
    """Build a table with a row per model and figure: the mean ± half the range over the seeds."""
    rows = [
        _row("FlowGauge", name, [[one[key] for one in found] for found in by_category.values()])
        for key, name in FIGURES.items()
    ]
    peers = [{p["model"]: p for p in found[0].get("comparison", [])} for found in by_category.values()]
    for model in sorted({m for of_one in peers for m in of_one} - {"FlowGauge"}):
        for key, name in FIGURES.items():
            columns = [[of_one[model][key]] if model in of_one else [None] for of_one in peers]
            rows.append(_row(model, name, columns))
    return Table(title, ["model", "figure", *by_category, "mean"], rows)


def _row(model: str, figure: str, columns: Sequence[Sequence[float | None]]) -> list[str]:
    cells, means = [], []
    for column in columns:
        values = [v for v in column if v is not None]
        if not values:
            cells.append("-")
            continue
        means.append(statistics.fmean(values))
        spread = f" ± {(max(values) - min(values)) / 2:.4f}" if len(values) > 1 else ""
        cells.append(f"{means[-1]:.4f}{spread}")
    return [model, figure, *cells, f"{statistics.fmean(means):.4f}" if means else "-"]


if __name__ == "__main__":
    sys.exit(main())
