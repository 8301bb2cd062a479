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
    """

    graph: Any
    scales: range


class OwnGraphs:
    """Computes a head picture by picture, those of a batch beside each other, each by a share of the threads.

    What one picture's maps become then stays in a core's own cache, and no thread waits for the others after
    every layer. To be called from one thread at a time.

    Args:
        alone: the graphs by which a single picture is computed, beside each other, see `groups_of`.
        together: the graph of all scales by a share of the threads, in several streams; None computes one
            picture after the other.
    """

    def __init__(self, alone: Sequence[Group], together: Any | None) -> None:
        shapes = [[tuple(output.shape)[1:] for output in group.graph.outputs] for group in alone]
        sizes = [len(group.scales) for group in alone]
        flow = [shape for found, n in zip(shapes, sizes, strict=True) for shape in found[:n]]
        pictures = [sum(found[2 * n :][:-2], ()) for found, n in zip(shapes, sizes, strict=True)]
        scales = len(flow)
        self._shapes = [*flow, *flow, (sum(map(sum, pictures)),), (scales,), (scales,)]
        self._alone = _Turns(alone, 1)
        self._streams = 1 if together is None else streams_of(together)
        # Twice as many, so that the next pictures wait for the threads and not the threads for them.
        self._together = _Turns(
            [] if together is None else [Group(together, range(scales))], 2 * self._streams
        )

    def __call__(self, maps: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """What `openvino_head.build` gives of all scales, each (N, ...).

        Args:
            maps: (N, ...) each, as the graphs take them.
        """
        n, together = len(maps[0]), 0
        found = [np.empty((n, *shape), np.float32) for shape in self._shapes]
        if self._streams > 1:
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
            for group, requests, outputs in zip(
                self._groups, self._requests, self._places(found), strict=True
            ):
                inputs = [maps[scale] for scale in group.scales]
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

    def _places(self, found: Sequence[NDArray[np.float32]]) -> list[list[NDArray[np.float32]]]:
        """Where each group's outputs belong in those of all scales."""
        *energies, picture, mean, square = found
        scales = len(energies) // 2
        places: list[list[NDArray[np.float32]]] = []
        before = 0
        for graph, group in self._groups:
            of_group = slice(group.start, group.stop)
            place = [*energies[:scales][of_group], *energies[scales:][of_group]]
            # Of some scales there is no energy of the whole picture.
            if len(graph.outputs) > len(place) + 2:
                n = graph.outputs[len(place)].shape[1]
                place.append(picture[:, before : before + n])
                before += n
            places.append([*place, mean[:, of_group], square[:, of_group]])
        return places
