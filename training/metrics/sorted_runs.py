"""Scores of many pictures on disk, read back in the order of score, in bounded memory.

An external merge sort: every picture leaves its distinct scores, sorted, in a temporary file (a run). Every
256th of them stays in memory; from these the scores are cut into intervals of about equally many entries, and
the intervals are then read from all runs at once, highest first. A score lies in one interval only, so ties
are never torn apart.
"""

import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float32, np.int32, np.float64)

_SAMPLE_EVERY = 256
CHUNK = 2**20  # entries
_IN_MEMORY = 64 * 2**20  # bytes up to which no file is made


class Entries(NamedTuple):
    """What lies in one interval, in no particular order.

    Attributes:
        values: (n,) float32 scores.
        counts: (n,) how many pixels of the run have that score.
        weights: (n,) float64 sum of their weights; empty where the runs have none.
        runs: (n,) the run, from 0 in the order of `append`.
    """

    values: NDArray[np.float32]
    counts: NDArray[np.int64]
    weights: NDArray[np.float64]
    runs: NDArray[np.int64]


class SortedRuns:
    """Runs of sorted scores with their counts and, if so made, weights. Close it after use.

    Args:
        weighted: whether the pixels carry weights.
    """

    def __init__(self, *, weighted: bool = False) -> None:
        self._weighted = weighted
        # Closed by close(): it outlives this call by far.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
        self._starts: list[int] = []
        self._lengths: list[int] = []
        self._samples: list[NDArray[np.float32]] = []
        self._end = 0
        self.pixels = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def append(self, values: NDArray[np.float32], weights: NDArray[np.float64] | None = None) -> None:
        """Add the scores of one picture, (n,) finite, in any order; and their weights, (n,).

        Raises:
            OSError: they cannot be written, as on a full disk; the folder is named.
        """
        columns: list[NDArray[np.generic]]
        if self._weighted:
            distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
            columns = [distinct, counts.astype(np.int32), np.bincount(inverse, weights, len(distinct))]
        else:
            distinct, counts = np.unique(values, return_counts=True)
            columns = [distinct, counts.astype(np.int32)]
        try:
            self._file.seek(self._end)
            for column in columns:
                self._file.write(column.tobytes())
        except OSError as error:  # whose file has no name
            said = f"{error.strerror}, for the maps' scores; TMPDIR names another folder for them"
            raise OSError(error.errno, said, tempfile.gettempdir()) from error
        self._starts.append(self._end)
        self._lengths.append(len(distinct))
        self._samples.append(distinct[::_SAMPLE_EVERY].copy())
        self._end += sum(column.nbytes for column in columns)
        self.pixels += len(values)

    def values(self, run: int) -> NDArray[np.float32]:
        """The distinct scores of a run, rising."""
        return self._read(run, 0, np.float32, 0, self._lengths[run])

    def counts(self, run: int) -> NDArray[np.int32]:
        """How many pixels have each of `values`."""
        return self._read(run, 4, np.int32, 0, self._lengths[run])

    def _read(self, run: int, column: int, dtype: type[Number], first: int, last: int) -> NDArray[Number]:
        """Entries first ... last - 1 of the column that lies `column` bytes an entry into the run."""
        size = np.dtype(dtype).itemsize
        self._file.seek(self._starts[run] + column * self._lengths[run] + size * first)
        return np.frombuffer(self._file.read(size * (last - first)), dtype)

    def _cuts(self, boundaries: NDArray[np.float32]) -> NDArray[np.int32]:
        """(runs, boundaries + 2): where each interval begins in each run, and its end."""
        cuts = np.zeros((len(self), len(boundaries) + 2), dtype=np.int32)
        for run, length in enumerate(self._lengths):
            cuts[run, 1:-1] = np.searchsorted(self.values(run), boundaries, side="left")
            cuts[run, -1] = length
        return cuts

    def _between(self, firsts: NDArray[np.int32], lasts: NDArray[np.int32]) -> Entries:
        runs = np.flatnonzero(lasts > firsts)

        def column(offset: int, dtype: type[Number]) -> NDArray[Number]:
            parts = [self._read(int(r), offset, dtype, int(firsts[r]), int(lasts[r])) for r in runs]
            return np.concatenate(parts) if parts else np.empty(0, dtype)

        return Entries(
            values=column(0, np.float32),
            counts=column(4, np.int32).astype(np.int64),
            weights=column(8, np.float64) if self._weighted else np.empty(0),
            runs=np.repeat(runs, (lasts - firsts)[runs]),
        )


def descending(stores: Sequence[SortedRuns], chunk: int | None = None) -> Iterator[list[Entries]]:
    """Cut the scores of several stores into the same intervals and read them, highest first.

    Args:
        stores: what is read.
        chunk: about how many entries an interval holds, CHUNK by default; with r runs never more than
            chunk + 256 (r + 1).

    Yields:
        Per interval the entries of every store.
    """
    samples = [sample for store in stores for sample in store._samples]
    pooled = np.sort(np.concatenate(samples)) if samples else np.empty(0, np.float32)
    step = max(1, (chunk or CHUNK) // _SAMPLE_EVERY)
    boundaries = np.unique(pooled[step::step])
    cuts = [store._cuts(boundaries) for store in stores]
    for i in reversed(range(len(boundaries) + 1)):
        yield [store._between(c[:, i], c[:, i + 1]) for store, c in zip(stores, cuts, strict=True)]
