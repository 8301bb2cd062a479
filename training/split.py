"""Which good pictures fit the flows, and which calibrate them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.sample import DatasetError


@dataclass(frozen=True)
class Split:
    """The training pictures, divided once by seed: rows to fit and rows to calibrate with."""

    fit: NDArray[np.int64]
    calibration: NDArray[np.int64]


def split(count: int, fraction: float, seed: int) -> Split:
    """Divide `count` pictures at random; calibration gets round(fraction * count), at least one.

    Raises:
        DatasetError: there are too few to fit and to calibrate.
    """
    held_out = max(1, round(fraction * count))
    if count - held_out < 2:
        raise DatasetError(
            f"{count} good pictures are too few: at least 2 to fit and {held_out} to calibrate with"
        )
    order = np.random.default_rng(seed).permutation(count)
    return Split(fit=np.sort(order[held_out:]), calibration=np.sort(order[:held_out]))


def without_copies(paths: Sequence[Path], hashes: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Keep the first of pictures that are the same file, byte for byte.

    A copy on the other side of the split would be a calibration picture that the fit has seen: its score
    would be too low, and the threshold a promise that does not hold.
    """
    first = {sha256: path for path, sha256 in reversed(list(zip(paths, hashes, strict=True)))}
    kept = [(p, h) for p, h in zip(paths, hashes, strict=True) if first[h] == p]
    return [p for p, _ in kept], [h for _, h in kept]
