"""Scalars of every epoch, for TensorBoard."""

from pathlib import Path

import numpy as np

from training.fit.epoch_metrics import EpochMetrics


class TensorBoardError(ValueError):
    """TensorBoard logs cannot be written."""


class TensorBoardLog:
    """Writes a run's epochs, including those before a stop.

    Args:
        folder: the run's folder within the folder for `tensorboard --logdir`. The log hides an earlier one of
            the same run.

    Raises:
        TensorBoardError: the package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # takes a second; most runs do without
        except ImportError as error:
            raise TensorBoardError(
                "tensorboard logging needs a package that is not installed: pip install tensorboard, or "
                "train without it"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=0)

    def epoch(self, row: EpochMetrics) -> None:
        parts = {"fit": row.fit_nll, "held_out": row.held_out_nll, "validation": row.validation_nll or []}
        for part, losses in parts.items():
            if losses:
                self._writer.add_scalar(f"nll/{part}", float(np.mean(losses)), row.epoch)
            for scale, loss in enumerate(losses):
                self._writer.add_scalar(f"nll_scale_{scale}/{part}", loss, row.epoch)
        self._writer.add_scalar("learning_rate", row.learning_rate, row.epoch)
        self._writer.add_scalar("seconds", row.seconds, row.epoch)
        self._writer.flush()
