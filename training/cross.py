"""Split or cross: the heads of a run, and the calibration of each engine that is to serve them.

Of the method split one head is fitted, and calibrated with pictures held out. Of the method cross as many
heads as folds are fitted, each without one fold, which it scores; all heads are published and serve together,
for the promise (`flows.fastflow.conformal`) is about all of them. A single head, refitted to everything or
picked from them, would have no p-value of this kind.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flows.fastflow.engines import Engine
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.head import Head
from flows.fastflow.manifest import Precision
from flows.fastflow.scorer import Scorer
from training.calibrate import Calibrated, calibrate, concluded, measured
from training.config import RunConfig
from training.datasets.sample import DatasetError
from training.feature_cache import Features
from training.loop import METRICS, EpochMetrics, fit, of_final_weights, read_metrics
from training.pinned import Pinned
from training.split import Split, split

Folds = NDArray[np.int64]


def folds_of(count: int, config: RunConfig) -> Folds | None:
    """The fold of each of `count` pictures, drawn by the run's seed, of nearly equal sizes; None of split.

    Raises:
        DatasetError: there are too few for so many folds.
    """
    settings = config.calibration
    if settings.method == "split":
        return None
    if count < settings.folds or count - -(-count // settings.folds) < 2:
        raise DatasetError(
            f"{count} good pictures are too few for {settings.folds} folds: one in each, at least 2 to fit"
        )
    shuffled = np.random.default_rng(config.seed).permutation(count)
    folds = np.empty(count, dtype=np.int64)
    folds[shuffled] = np.arange(count) % settings.folds
    return folds


def parts_of(count: int, folds: Folds | None, fraction: float, seed: int) -> list[Split]:
    """Which of `count` pictures each head is fitted to, and which it has not seen.

    Args:
        count: of the pictures.
        folds: of each picture, see `folds_of`; None to hold out a share.
        fraction, seed: of the share, see `training.split.split`; not used with folds.

    Raises:
        DatasetError: there are too few to hold out a share.
    """
    if folds is None:
        return [split(count, fraction, seed)]
    return [
        Split(fit=np.flatnonzero(folds != k), calibration=np.flatnonzero(folds == k))
        for k in range(int(folds.max()) + 1)
    ]


def fit_heads(
    config: RunConfig,
    features: Features,
    parts: Sequence[Split],
    *,
    device: torch.device,
    folder: Path,
    identity: str,
    resume: bool,
    on_batch: Callable[[int], None],
    on_epoch: Callable[[int, EpochMetrics], None],
) -> list[Head]:
    """Fit a head to each part; arguments as of `training.loop.fit`, but `on_epoch` is told the head's number.

    Of several, each has a checkpoint of its own, `fold-0/`, `fold-1/`, ..., and the run's metrics are their
    means.
    """
    several = len(parts) > 1
    heads = []
    for k, part in enumerate(parts):
        own = folder / f"fold-{k}" if several else folder
        own.mkdir(exist_ok=True)
        heads.append(
            fit(
                config,
                features,
                part,
                device=device,
                folder=own,
                identity=f"{identity}/{k}" if several else identity,
                resume=resume,
                on_batch=on_batch,
                on_epoch=partial(on_epoch, k),
            )
        )
    if several:
        # Of each epoch those that went so far: they may differ in pictures, and so in epochs, or in where
        # they stop.
        rows = [read_metrics(folder / f"fold-{k}") for k in range(len(parts))]
        means = [_mean([row for row in of_epoch if row is not None]) for of_epoch in zip_longest(*rows)]
        (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in means))
    return heads


def scorers(
    config: RunConfig, extractor: FeatureExtractor, heads: Sequence[Head], engines: Sequence[Engine]
) -> dict[Precision, Scorer]:
    """The engines that the run asks for, each over all heads."""
    rule = config.score.rule(heads, config.geometry)
    return {
        engine.precision: Scorer(extractor, heads, config.input_size, rule, config.geometry, engine)
        for engine in engines
    }


def calibrate_engines(
    engines: Mapping[Precision, Scorer],
    pictures: Sequence[Pinned],
    folds: Folds | None,
    target_fpr: float,
    advance: Callable[[int], None],
    sample_bits: int,
) -> dict[Precision, Calibrated]:
    """Calibrate every engine by the scores that it gives itself.

    Args:
        engines: from `scorers`.
        pictures: good ones that the fit never saw; of folds all.
        folds: of each picture, see `folds_of`.
        target_fpr: share of good parts that may be rejected.
        advance: called with 1 after every picture of every engine.
        sample_bits: of the pictures, see `images.decode`.

    Raises:
        ImageError, DatasetError: as `calibrate`.
    """
    if folds is None:
        return {
            name: calibrate(engine, pictures, target_fpr, advance, sample_bits)
            for name, engine in engines.items()
        }
    found = {}
    for name, engine in engines.items():
        apart = [engine.with_heads(head) for head in engine.heads]
        seen_by = folds.tolist()
        of_each = [
            measured(apart[k], one, advance, sample_bits) for k, one in zip(seen_by, pictures, strict=True)
        ]
        found[name] = concluded(of_each, target_fpr, seen_by)
    return found


def final_metrics(folder: Path, heads: int) -> dict[str, float]:
    """What a run's heads ended with, means over scales and heads; of each the epoch whose weights it has.

    Args:
        folder: of the run, after `fit_heads`.
        heads: how many were fitted there.
    """
    places = [folder] if heads == 1 else [folder / f"fold-{k}" for k in range(heads)]
    rows = [of_final_weights(read_metrics(place)) for place in places]
    return {name: float(np.mean([row[name] for row in rows])) for name in ("fit_nll", "held_out_nll")}


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each figure of an epoch over folds, and all their seconds; None for what no fold has."""

    def of_all(name: str, value: Any) -> Any:
        if name == "epoch" or value is None:
            return value
        together = np.sum if name == "seconds" else np.mean
        return together([row[name] for row in rows], axis=0).tolist()

    return {name: of_all(name, value) for name, value in rows[0].items()}
