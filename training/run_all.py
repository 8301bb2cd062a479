"""Training of several categories in turn; one that fails does not stop the others."""

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import BACKBONES
from flows.fastflow.files.atomic_files import replace_file
from training.config.run_config import RunConfig
from training.features.backbone import BackboneLoader
from training.fit.errors import FitError
from training.run import TrainedBundle, train
from training.terminal.columns import aligned
from training.terminal.progress import Progress

SUMMARY = "summary.json"


@dataclass(frozen=True)
class CategoryResult:
    """The result of one category; unknown values are None.

    Attributes:
        status: "trained", "reused" (published by an earlier run), "failed", "begun" (running or killed), or
            "not begun".
        pictures: number of good images, including those held out.
        held_out_nll: loss of the held-out images, in nats per dimension.
        threshold: image score above which a part is rejected.
        certified: True if the threshold certifies the requested rate.
        version: the published version; active unless another one was activated after an earlier run.
    """

    category: str
    status: Literal["trained", "reused", "failed", "begun", "not begun"]
    pictures: int | None = None
    seconds: float | None = None
    held_out_nll: float | None = None
    threshold: float | None = None
    certified: bool | None = None
    version: str | None = None
    reason: str | None = None
    traceback: str | None = None


def train_each(
    configs: Mapping[str, RunConfig],
    data: Path,
    *,
    models: Path,
    runs: Path,
    resume: bool,
    progress: Progress,
) -> list[CategoryResult]:
    """Train the categories one after the other, with the backbone loaded once.

    The results are written to `runs`/summary.json before and after each category, so that a killed run leaves
    correct results, too.

    Args:
        configs: settings by category, in the order of training.
        resume: skip finished categories and continue the stopped one; active versions stay active.
    """
    backbones = BackboneLoader(models / BACKBONES)
    results = [CategoryResult(category, "not begun") for category in configs]
    write_summary(runs, results)
    for i, (category, config) in enumerate(configs.items()):
        progress.say(f"[{i + 1}/{len(configs)}] {category}")
        results[i] = CategoryResult(category, "begun")
        write_summary(runs, results)
        results[i] = train_category(
            config,
            data,
            category,
            models=models,
            runs=runs,
            resume=resume,
            progress=progress,
            backbones=backbones,
            displace=False,  # no one asked for this category by name
        )
        if results[i].status == "failed":
            progress.say(f"{category} failed: {results[i].reason}")
        write_summary(runs, results)
    return results


def train_category(config: RunConfig, data: Path, category: str, **options: Any) -> CategoryResult:
    """Train a category; an error becomes a result. For the arguments see `training.run.train`."""
    start = time.monotonic()
    try:
        outcome = train(config, data, category, **options)
        return _result(category, outcome, time.monotonic() - start)
    # No error of one category may stop the others.
    except Exception as error:
        return describe_failure(category, error, time.monotonic() - start)


def require_trained(result: CategoryResult, models: Path) -> TrainedBundle:
    """Return the bundle of a result.

    Raises:
        FitError: it failed.
    """
    if result.version is None:
        raise FitError(result.traceback or result.reason)
    return TrainedBundle(models / result.category / result.version, reused=result.status == "reused")


def table(results: Sequence[CategoryResult]) -> list[str]:
    """Format the results as a table, with the first line of each reason."""
    head = ["category", "images", "seconds", "held-out nll", "threshold", "certified", "version or reason"]
    rows = [
        [
            r.category,
            "-" if r.pictures is None else str(r.pictures),
            "-" if r.seconds is None else f"{r.seconds:.0f}",
            "-" if r.held_out_nll is None else f"{r.held_out_nll:.3f}",
            "-" if r.threshold is None else f"{r.threshold:.4f}",
            {True: "yes", False: "no", None: "-"}[r.certified],
            r.version or ": ".join([r.status, *(r.reason or "").splitlines()[:1]]),
        ]
        for r in results
    ]
    return aligned([head, *rows], left=(0, len(head) - 1))


def _result(category: str, outcome: TrainedBundle, seconds: float) -> CategoryResult:
    manifest = read_manifest(outcome.bundle)
    threshold, data = manifest.thresholds["float32"], manifest.data
    return CategoryResult(
        category,
        "reused" if outcome.reused else "trained",
        pictures=data.n_fit if manifest.starter else data.n_fit + data.n_calibration,
        seconds=seconds,
        held_out_nll=manifest.metrics.get("held_out_nll"),
        threshold=threshold.reject,
        certified=threshold.certified,
        version=manifest.version,
    )


def describe_failure(category: str, error: Exception, seconds: float) -> CategoryResult:
    """Describe an error; one of a kind that no user can correct comes with its traceback."""
    # Messages of our own errors and of the system are complete.
    ours = type(error).__module__.partition(".")[0] in {"flows", "training"}
    is_complete = isinstance(error, OSError) or (ours and isinstance(error, ValueError))
    reason = str(error) if is_complete else f"{type(error).__name__}: {error}"
    trace = None if is_complete else "".join(traceback.format_exception(error))
    return CategoryResult(category, "failed", seconds=seconds, reason=reason, traceback=trace)


def write_summary(runs: Path, results: Sequence[CategoryResult]) -> None:
    """Write the results to `runs`/summary.json."""
    runs.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(result) for result in results], indent=1) + "\n"
    replace_file(runs / SUMMARY, text.encode(), sync=False)
