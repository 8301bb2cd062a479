"""Histograms of float32 scores in bounded memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_BINS = 2**18
_SIGN = np.uint32(1 << 31)


class ScoreHistogram:
    """Sums of several columns per bin of scores; bins follow the order of float32 numbers.

    A bin holds 2^k neighbouring float32 numbers, with the smallest k that fills at most MAX_BINS bins. Up to
    MAX_BINS distinct scores have a bin each; beyond that, bins are as fine as the memory allows.

    Args:
        max_bins: see above; each takes at most about 150 bytes.
    """

    def __init__(self, columns: int, max_bins: int = MAX_BINS) -> None:
        self._max_bins = max_bins
        self._shift = 0
        self._keys = np.empty(0, np.uint32)  # ascending
        self._sums = np.empty((0, columns))
        self._waiting: list[tuple[NDArray[np.uint32], NDArray[np.float64]]] = []
        self._waiting_bins = 0

    def add(self, scores: NDArray[np.float32], columns: Sequence[float | NDArray[np.float64]]) -> None:
        """Add scores, (n,) finite, in any order.

        Args:
            columns: for each column the number that a score adds, or (n,) numbers.
        """
        keys = _ordered(scores) >> np.uint32(self._shift)
        distinct, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        sums = [
            counts * one if isinstance(one, float) else np.bincount(inverse, one, len(distinct))
            for one in columns
        ]
        self._waiting.append((distinct, np.stack(sums, 1)))
        self._waiting_bins += len(distinct)
        if self._waiting_bins > self._max_bins:
            self._merge()

    def descending(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Return the lowest float32 of each filled bin, (b,), highest first, and the sums, (b, columns)."""
        self._merge()
        return self.lowest(self._keys[::-1]), self._sums[::-1]

    def above(self, lowest: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the lowest float32 above each bin, given the lowest of each."""
        return self.lowest((_ordered(lowest) >> np.uint32(self._shift)) + np.uint32(1))

    def lowest(self, keys: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Return the lowest float32 of the bins with these keys."""
        ordered = keys << np.uint32(self._shift)
        return np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).view(np.float32)

    def _merge(self) -> None:
        keys, inverse = np.unique(
            np.concatenate([self._keys, *(keys for keys, _ in self._waiting)]), return_inverse=True
        )
        sums = np.concatenate([self._sums, *(sums for _, sums in self._waiting)])
        columns = [np.bincount(inverse, column, len(keys)) for column in sums.T]
        self._keys, self._sums = keys, np.stack(columns, 1)
        self._waiting, self._waiting_bins = [], 0
        while len(self._keys) > self._max_bins:
            halved = self._keys >> np.uint32(1)
            starts = np.flatnonzero(np.append([True], halved[1:] != halved[:-1]))
            self._keys, self._sums = halved[starts], np.add.reduceat(self._sums, starts)
            self._shift += 1


def _ordered(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Map scores to integers in the same order; neighbouring float32 numbers give neighbours."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)
