"""The split of the training images into fit, validation and calibration."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.calibration.conformal import good_images_for, threshold_rank
from flows.fastflow.config import MIN_GOOD_IMAGES
from training.config.run_config import CalibrationConfig
from training.data.sample import DatasetError


@dataclass(frozen=True)
class Split:
    """Rows of the training images, split once by seed.

    Attributes:
        validation: rows for early stopping; empty without it.
    """

    fit: NDArray[np.int64]
    calibration: NDArray[np.int64]
    validation: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def seen(self) -> NDArray[np.int64]:
        """Rows that influence the weights."""
        return np.sort(np.concatenate((self.fit, self.validation)))

    def with_validation(self, fraction: float, seed: int) -> "Split":
        """Move a share of the rows to fit, at least one, to validation.

        Raises:
            DatasetError: too few would be left to fit.
        """
        count = max(1, round(fraction * len(self.fit)))
        if len(self.fit) - count < 2:
            raise DatasetError(
                f"{len(self.fit)} good images to fit are too few to hold {count} back for fit.stopping"
            )
        shuffled = np.random.default_rng([seed, 1]).permutation(self.fit)
        return Split(np.sort(shuffled[count:]), self.calibration, np.sort(shuffled[:count]))

    def of_images(self, parts: NDArray[np.int64], drawn: NDArray[np.int64]) -> "Split":
        """Turn this split of parts into a split of their images.

        Args:
            parts: (N,) row of each image's part in this split.
            drawn: the one image of each part that may calibrate, see
                `flows.fastflow.calibration.images_per_part`; other images of a held-out part are not used.
        """
        return Split(
            fit=np.flatnonzero(np.isin(parts, self.fit)),
            calibration=drawn[np.isin(parts[drawn], self.calibration)],
            validation=np.flatnonzero(np.isin(parts, self.validation)),
        )


def split(count: int, fraction: float, seed: int) -> Split:
    """Split `count` images at random; calibration gets round(fraction * count), at least one.

    Raises:
        DatasetError: there are too few to fit and to calibrate.
    """
    held_out = max(1, round(fraction * count))
    if count - held_out < 2:
        raise DatasetError(
            f"{count} good images are too few: at least 2 to fit and {held_out} to calibrate with"
        )
    order = np.random.default_rng(seed).permutation(count)
    return Split(fit=np.sort(order[held_out:]), calibration=np.sort(order[:held_out]))


def share(count: int) -> Split:
    """Use every image both to fit and to calibrate, see `training.fit.starter`.

    Raises:
        DatasetError: there are too few.
    """
    require_enough(count)
    return Split(fit=np.arange(count), calibration=np.arange(count))


def require_enough(count: int) -> None:
    """Require enough good images to learn from.

    Raises:
        DatasetError: there are too few.
    """
    if count < MIN_GOOD_IMAGES:
        raise DatasetError(
            f"{count} good images are too few: add {MIN_GOOD_IMAGES - count} more, for {MIN_GOOD_IMAGES} "
            "different ones. With so few, --starter is better than a training; 50 are enough for one"
        )


def describe_shortage(held_out: int, calibration: CalibrationConfig, *, parts: bool) -> list[str]:
    """Describe, in one line, that there are too few held-out images for the rate; empty if not.

    Args:
        held_out: number of images to calibrate with, by split conformal prediction
            (`flows.fastflow.calibration.conformal`).
        calibration: the requested rate.
        parts: True if the images are one per part.
    """
    counted = "parts" if parts else "images"
    rate = calibration.target_fpr
    if threshold_rank(held_out, rate) >= 1:
        return []
    return [
        f"too few for {rate:.2%}: {held_out} held-out {counted} can promise {1 / (held_out + 1):.2%} false "
        f"rejects at best; it takes {good_images_for(rate, calibration.fraction)} good {counted} in all"
    ]


def without_copies(paths: Sequence[Path], hashes: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Keep the first of byte-for-byte copies.

    A copy on the other side of the split would be a calibration image that the fit has seen: its score would
    be too low, and the promise of the threshold false.
    """
    first = dict(reversed([(sha256, path) for path, sha256 in zip(paths, hashes, strict=True)]))
    return list(dict.fromkeys(first[sha256] for sha256 in hashes)), list(dict.fromkeys(hashes))
