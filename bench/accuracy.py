"""python -m bench.accuracy: accuracy over categories, backbones and seeds, beside anomalib's models.

Every figure is of the last epoch of a run that never saw a test image. With --compare, anomalib's PatchCore
and PaDiM are fitted to the first seed's split, with the same backbone, stages and size.

    python -m bench.accuracy --set ../mvtec bottle --set ../mvtec grid --presets tf_efficientnet_lite0
    python -m bench.accuracy --set ../mvtec bottle --size 384 --compare --compare-python PYTHON

A run that was interrupted goes on where it ended.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.report import RESULTS, Report, Table
from examples.children import run
from flows.fastflow import models_folder
from training.assessment import SUMMARY

FIGURES = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro_0.3": "AUPRO",
    # Stricter: a map may gain in the two above and lose in these.
    "pixel_average_precision": "pixel AP",
    "aupimo": "AUPIMO",
}
Summary = dict[str, Any]


def main() -> int:
    """Run what is missing and report it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--set", nargs=2, action="append", required=True, metavar=("DIR", "CATEGORY"))
    parser.add_argument("--presets", nargs="+", default=["tf_efficientnet_lite0"])
    parser.add_argument("--size", type=int, help="side of the input; by default the preset's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--config", type=Path, help="a run's YAML under all of this")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--compare-python", type=Path)
    parser.add_argument("--compare-coreset", type=float, default=0.01)
    parser.add_argument("--out", type=Path, default=RESULTS / "accuracy")
    options = parser.parse_args()
    report = Report("accuracy", {"seeds": options.seeds, "size": options.size or "the preset's"})
    for preset in options.presets:
        name = preset if options.size is None else f"{preset}-{options.size}"
        found: dict[str, list[Summary]] = {}
        for data, category in options.set:
            for seed in options.seeds:
                summary = _summary(options, preset, options.out / name, Path(data), category, seed)
                found.setdefault(category, []).append(summary)
        report.tables.append(table(name, found))
        report.figures[name] = found
    return report.write(options.out)


def _summary(
    options: argparse.Namespace, preset: str, folder: Path, data: Path, category: str, seed: int
) -> Summary:
    """Train and evaluate, unless an earlier run did with these settings and today's defaults."""
    place = folder / category / str(seed)
    place.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load(options.config.read_text()) if options.config else {}
    if options.size is not None:
        settings["input_size"] = [options.size, options.size]
    (place / "run.yaml").write_text(yaml.safe_dump(settings))
    models = place / "models"
    which = ("--data", str(data), "--category", category, "--models", str(models))
    run(
        "train", *which, "--runs", str(options.out / "runs"), "--resume", "--preset", preset,
        "--config", str(place / "run.yaml"), "--seed", str(seed), "--threads", str(options.threads),
    )  # fmt: skip
    others: list[str] = []
    if options.compare and seed == options.seeds[0]:
        others = ["--compare", "--compare-coreset", str(options.compare_coreset)]
        if options.compare_python:
            others += ["--compare-python", str(options.compare_python)]
    summary = place / category / models_folder.resolve(models, category).name / SUMMARY
    if not summary.exists() or (others and "comparison" not in json.loads(summary.read_text())):
        run("evaluate", *which, "--threads", str(options.threads), "--out", str(place), *others)
    found: Summary = json.loads(summary.read_text())
    return found


def table(title: str, by_category: Mapping[str, Sequence[Summary]]) -> Table:
    """A line per model and figure: the mean, and half the range over the seeds."""
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
