"""A head's graphs that are its own: with its weights in them, and for one picture each."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.engines.openvino_parts import let_end, shared, streams_of


def groups_of(scales: int, threads: int) -> list[range]:
    """Which scales each graph for a single picture computes: one the finest, and one all others.

    They take about as long, and need nothing of each other. So each is computed by half of the threads, which
    wait for each other after fewer layers than if all computed both.
    """
    if scales == 1 or threads == 1:
        return [range(scales)]
    return [range(1), range(1, scales)]


class Group(NamedTuple):
    """A graph for one picture and some of a head's scales.

    Attributes:
        graph: compiled.
        scales: which.
        pictures: how many energies of whole pictures it gives.
    """

    graph: Any
    scales: range
    pictures: int

    def places(self, found: Sequence[NDArray[np.float32]], before: int) -> list[NDArray[np.float32]]:
        """Where its outputs belong in those of all scales, behind some energies of whole pictures."""
        *energies, picture, mean, square = found
        half, chosen = len(energies) // 2, slice(self.scales.start, self.scales.stop)
        place = [*energies[:half][chosen], *energies[half:][chosen]]
        if self.pictures:
            place.append(picture[:, before : before + self.pictures])
        return [*place, mean[:, chosen], square[:, chosen]]


class OwnGraphs:
    """Computes a head picture by picture, those of a batch beside each other, each by a share of the threads.

    What one picture's maps become then stays in a core's own cache, and no thread waits for the others after
    every layer. To be called from one thread at a time.

    Args:
        alone: the graphs by which a single picture is computed, beside each other, see `groups_of`.
        together: the graph of all scales by a share of the threads, in several streams; None computes one
            picture after the other.
    """

    def __init__(self, alone: Sequence[Group], together: Group | None) -> None:
        sizes = [tuple(x.shape)[1:] for group in alone for x in group.graph.outputs[: len(group.scales)]]
        pictures = sum(group.pictures for group in alone)
        self._shapes = [*sizes, *sizes, (pictures,), (len(sizes),), (len(sizes),)]
        self._alone, self._together = _Turns(alone, 1), None
        self._streams = 1 if together is None else streams_of(together.graph)
        if together is not None and self._streams > 1:
            # Twice as many, so that the next pictures wait for the threads and not the threads for them.
            self._together = _Turns([together], 2 * self._streams)

    def __call__(self, maps: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """What `openvino_head.build` gives of all scales, each (N, ...).

        Args:
            maps: (N, ...) each, as the graphs take them.
        """
        n, together = len(maps[0]), 0
        found = [np.empty((n, *shape), np.float32) for shape in self._shapes]
        if self._together is not None:
            together = n - n % self._streams
            self._together.compute(maps, found, range(together))
        for i in range(together, n):
            self._alone.compute(maps, found, range(i, i + 1))
        return found


class _Turns:
    """Requests for one picture each, so many of each group, that take turns."""

    def __init__(self, groups: Sequence[Group], n: int) -> None:
        self._groups, self._n = groups, n
        self._requests = self._made()

    def _made(self) -> list[list[Any]]:
        return [[group.graph.create_infer_request() for _ in range(self._n)] for group in self._groups]

    def compute(
        self, maps: Sequence[NDArray[Any]], found: Sequence[NDArray[np.float32]], pictures: range
    ) -> None:
        """Fill the rows of some pictures."""
        try:
            before = 0
            for group, requests in zip(self._groups, self._requests, strict=True):
                inputs, outputs = [maps[scale] for scale in group.scales], group.places(found, before)
                before += group.pictures
                for turn, i in enumerate(pictures):
                    request = requests[turn % self._n]
                    if turn >= self._n:
                        request.wait()
                    for port, whole in enumerate(inputs):
                        request.set_input_tensor(port, shared(whole[i : i + 1]))
                    for port, whole in enumerate(outputs):
                        request.set_output_tensor(port, shared(whole[i : i + 1]))
                    request.start_async()
            for requests in self._requests:
                for request in requests[: len(pictures)]:
                    request.wait()
        except BaseException:
            let_end(request for requests in self._requests for request in requests)
            # One that failed would say so at every batch after it.
            self._requests = self._made()
            raise
