"""A run as TensorBoard shows it: losses of every epoch, settings, held-out scores and a few heatmaps."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.fastflow.heatmap import ColourScale, overlay
from flows.fastflow.scorer import Scorer
from training.calibrate import Calibrated
from training.config import RunConfig, dump_config
from training.loop import EpochMetrics
from training.pinned import Pinned, read

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_PICTURES = 4


class TensorBoardError(ValueError):
    """TensorBoard cannot be written for."""


class TensorBoardLog:
    """Writes one run. To be closed, or used in a `with` statement.

    Args:
        folder: of the run, within the folder that `tensorboard --logdir` gets. An earlier log of the same
            run there is hidden by this one.
        config: the run.

    Raises:
        TensorBoardError: the package is not installed.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise TensorBoardError(
                "tensorboard logging needs a package that is not installed: pip install tensorboard, or "
                "train without it"
            )
        # Imported here: it takes a second, and most runs have no use for it.
        from torch.utils.tensorboard import SummaryWriter

        self.config = config
        # A resumed run tells of all its epochs again.
        self._writer: SummaryWriter = SummaryWriter(str(folder), purge_step=0)
        self._writer.add_text("config", f"```yaml\n{dump_config(config)}```", 0)
        self._last = 0

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def epoch(self, row: EpochMetrics) -> None:
        """Log one epoch."""
        parts = {"fit": row.fit_nll, "held_out": row.held_out_nll, "validation": row.validation_nll or []}
        for part, losses in parts.items():
            if not losses:
                continue
            self._writer.add_scalar(f"nll/{part}", float(np.mean(losses)), row.epoch)
            for scale, loss in enumerate(losses):
                self._writer.add_scalar(f"nll_scale_{scale}/{part}", loss, row.epoch)
        self._writer.add_scalar("learning_rate", row.learning_rate, row.epoch)
        self._writer.add_scalar("seconds", row.seconds, row.epoch)
        self._last = row.epoch

    def end(
        self,
        calibrated: Calibrated,
        scorer: Scorer,
        held_out: Sequence[Pinned],
        reached: Mapping[str, float],
    ) -> None:
        """Log what calibration found, with heatmaps of good pictures from the lowest score to the highest.

        Args:
            calibrated: what it found.
            scorer: the fitted model.
            held_out: the good pictures it was found on, in the order of its scores.
            reached: what the fit ended with, see `training.loop.final_metrics`.

        Raises:
            DatasetError: a picture's file is gone or was changed since; it is named.
        """
        step = self._last
        self._writer.add_histogram("held_out/score", np.asarray(calibrated.scores), step)
        self._writer.add_scalar("held_out/threshold", calibrated.threshold.reject, step)
        made = calibrated.calibration
        colours = ColourScale(made.map_typical, made.map_threshold)
        ranked = np.argsort(calibrated.scores, kind="stable")
        for i in np.unique(np.linspace(0, len(ranked) - 1, _PICTURES).round().astype(int)):
            image = read(held_out[ranked[i]], self.config.sample_bits)
            [scored] = scorer.score([image])
            pair = np.hstack([image, overlay(image, scored.score_map, colours)])
            self._writer.add_image(f"held_out/good_{i:04}", pair, step, dataformats="HWC")
        if step:
            found = {f"metrics/{name}": value for name, value in reached.items()}
            settings = _flat(self.config.model_dump(mode="json"))
            # In the run's own folder, not in one beside it.
            self._writer.add_hparams(settings, found, run_name=".", global_step=step)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | float | int | str]:
    """Nested settings as one mapping of dotted names to what TensorBoard takes."""
    flat: dict[str, bool | float | int | str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, bool | float | int | str) else str(value)
    return flat
