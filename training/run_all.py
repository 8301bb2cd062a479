"""Several categories in turn: one that fails does not stop the others; a summary says what became of each."""

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from flows.fastflow.bundle.bundle import read_manifest
from flows.fastflow.bundle.models_folder import BACKBONES
from flows.fastflow.files.atomic_files import replace_file
from training.config.run_config import RunConfig
from training.features.backbone import BackboneLoader
from training.run import TrainedBundle, train
from training.terminal.columns import aligned
from training.terminal.progress import Progress

SUMMARY = "summary.json"


@dataclass(frozen=True)
class CategoryResult:
    """What became of one category; what is not known of it is None.

    Attributes:
        category: its name.
        status: "trained", "reused" (an earlier run had made it), "failed", "begun" (it is at work, or was
            killed), or "not begun".
        pictures: good images it was learned from, those held out included.
        seconds: wall time.
        held_out_nll: of the held-out images, in nats per dimension.
        threshold: above which image score a part is rejected.
        certified: whether the threshold certifies the rate asked for.
        version: that was published; it is active, unless another one was made so after an earlier run.
        reason: why it failed.
        traceback: of a failure that is nobody's mistake but ours.
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

    What became of them is written to `runs`/summary.json before and after each, so that it is true of a run
    that was killed, too.

    Args:
        configs: per category its run, in the order in which they are trained.
        data, models, runs, progress: as for `training.run.train`.
        resume: pass over categories that are done, and continue the one that was stopped. What serves stays.

    Returns:
        One result per category, in order.
    """
    backbones = BackboneLoader(models / BACKBONES)
    results = [CategoryResult(category, "not begun") for category in configs]
    _write(runs, results)
    for i, (category, config) in enumerate(configs.items()):
        progress.say(f"[{i + 1}/{len(configs)}] {category}")
        results[i] = CategoryResult(category, "begun")
        _write(runs, results)
        start = time.monotonic()
        try:
            outcome = train(
                config,
                data,
                category,
                models=models,
                runs=runs,
                resume=resume,
                progress=progress,
                backbones=backbones,
                displace=False,  # of many, nobody has asked for this one
            )
            results[i] = _result(category, outcome, time.monotonic() - start)
        # Whatever it is, the other categories are not to blame for it.
        except Exception as error:
            results[i] = _failure(category, error, time.monotonic() - start)
            progress.say(f"{category} failed: {results[i].reason}")
        _write(runs, results)
    return results


def table(results: Sequence[CategoryResult]) -> list[str]:
    """The results as lines of aligned columns, with the first line of a reason."""
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
    threshold, found = manifest.thresholds["float32"], manifest.data
    return CategoryResult(
        category,
        "reused" if outcome.reused else "trained",
        pictures=found.n_fit + found.n_calibration,
        seconds=seconds,
        held_out_nll=manifest.metrics["held_out_nll"],
        threshold=threshold.reject,
        certified=threshold.certified,
        version=manifest.version,
    )


def _failure(category: str, error: Exception, seconds: float) -> CategoryResult:
    # Our own errors, and the system's, say all there is to say.
    ours = type(error).__module__.partition(".")[0] in {"flows", "training"}
    if isinstance(error, OSError) or (ours and isinstance(error, ValueError)):
        return CategoryResult(category, "failed", seconds=seconds, reason=str(error))
    return CategoryResult(
        category,
        "failed",
        seconds=seconds,
        reason=f"{type(error).__name__}: {error}",
        traceback="".join(traceback.format_exception(error)),
    )


def _write(runs: Path, results: Sequence[CategoryResult]) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(result) for result in results], indent=1) + "\n"
    replace_file(runs / SUMMARY, text.encode(), sync=False)
