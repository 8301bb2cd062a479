"""A head's graphs that are its own: with its weights in them, and for one picture each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.fastflow.engines.openvino_parts import let_end, shared, streams_of


class OwnGraphs:
    """Computes a head picture by picture, those of a batch beside each other, each by a share of the threads.

    What one picture's maps become then stays in a core's own cache, and no thread waits for the others after
    every layer. To be called from one thread at a time.

    Args:
        alone: the graph for one picture by all threads.
        together: the same by a share of them, in several streams; None computes one picture after the other.
    """

    def __init__(self, alone: Any, together: Any | None) -> None:
        self._shapes = [tuple(output.shape)[1:] for output in alone.outputs]
        self._alone = _Turns(alone, 1)
        self._streams = 1 if together is None else streams_of(together)
        # Twice as many, so that the next pictures wait for the threads and not the threads for them.
        self._together = None if together is None else _Turns(together, 2 * self._streams)

    def __call__(self, maps: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """What the graph gives, each (N, ...), of maps (N, ...) as it takes them."""
        n, together = len(maps[0]), 0
        found = [np.empty((n, *shape), np.float32) for shape in self._shapes]
        if self._together is not None:
            together = n - n % self._streams
            self._together.compute(maps, found, range(together))
        self._alone.compute(maps, found, range(together, n))
        return found


class _Turns:
    """Requests for one picture each, that take turns."""

    def __init__(self, graph: Any, n: int) -> None:
        self._graph, self._n = graph, n
        self._requests = self._made()

    def _made(self) -> list[Any]:
        return [self._graph.create_infer_request() for _ in range(self._n)]

    def compute(
        self, maps: Sequence[NDArray[Any]], found: Sequence[NDArray[np.float32]], pictures: range
    ) -> None:
        """Fill the rows of some pictures."""
        try:
            for turn, i in enumerate(pictures):
                request = self._requests[turn % self._n]
                if turn >= self._n:
                    request.wait()
                for port, whole in enumerate(maps):
                    request.set_input_tensor(port, shared(whole[i : i + 1]))
                for port, whole in enumerate(found):
                    request.set_output_tensor(port, shared(whole[i : i + 1]))
                request.start_async()
            for request in self._requests[: len(pictures)]:
                request.wait()
        except BaseException:
            let_end(self._requests)
            # One that failed would say so at every batch after it.
            self._requests = self._made()
            raise
