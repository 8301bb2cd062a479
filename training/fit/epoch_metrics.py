"""The metrics of each epoch, kept in metrics.jsonl."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flows.fastflow.files.atomic_files import replace_file

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class EpochMetrics:
    """One line of metrics.jsonl.

    Attributes:
        fit_nll: mean negative log-likelihood over the epoch, in nats per dimension, one value per scale.
        held_out_nll: the same for the calibration images after the epoch. It decides nothing.
        validation_nll: the same for the images that `fit.stopping` watches; None without it.
        learning_rate: at the end of the epoch.
    """

    epoch: int
    fit_nll: list[float]
    held_out_nll: list[float]
    learning_rate: float
    seconds: float
    validation_nll: list[float] | None = None


def write_metrics(folder: Path, history: Sequence[EpochMetrics]) -> None:
    """Replace the file by all epochs so far: a resumed run neither repeats nor loses a line."""
    text = "".join(json.dumps(asdict(row)) + "\n" for row in history)
    replace_file(folder / METRICS, text.encode(), sync=False)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the epochs of a fit: mappings with the fields of `EpochMetrics`."""
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def final_metrics(folder: Path) -> dict[str, float]:
    """Average the losses over scales, at the epoch whose weights the fit returned.

    Args:
        folder: the run's folder, after `fit`.
    """
    row = row_of_final_weights(read_metrics(folder))
    return {name: float(np.mean(row[name])) for name in ("fit_nll", "held_out_nll")}


def row_of_final_weights(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Find the epoch whose weights the fit returned: `fit.stopping`'s choice, or the last."""
    if rows[-1]["validation_nll"] is None:
        return rows[-1]
    return min(rows, key=lambda row: sum(row["validation_nll"]))
