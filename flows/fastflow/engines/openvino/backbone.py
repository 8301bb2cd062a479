"""A backbone as a graph of OpenVINO."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn

from flows.fastflow.backbones.recorded import FrozenBackbone
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.engines.openvino.primitives import shared_tensor, wait_for_all

if TYPE_CHECKING:
    from flows.fastflow.backbones.features import FeatureExtractor

# Pictures that are begun at once, at most, or buffers for what they give would grow without bound. It is
# whole rounds of 2, 3 or 4 streams.
_AT_ONCE: Final = 24


def convert(extractor: FrozenBackbone, size: tuple[int, int]) -> Any:
    """A graph of a backbone with its preprocessing, for any number of pictures of one size.

    The size is fixed: padding that depends on it (TensorFlow's "same") is computed while converting. By the
    frontend itself and not `openvino.convert_model`, which reports to Intel whenever it is called.

    Args:
        extractor: the backbone.
        size: (height, width) of the pictures, (N, height, width, 3) uint8.

    Raises:
        EngineError: OpenVINO cannot convert it.
        WeightsError, BundleError: as `RecordedBackbone.layers`.
    """
    images = torch.zeros((2, *size, 3), dtype=torch.uint8)
    layers = extractor.layers()
    frontend = FrontEndManager().load_by_framework("pytorch")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # OpenVINO traces by torch.jit, of which torch warns, as of every constant it meets.
            warnings.simplefilter("ignore")
            # What torch finds when it traces once more and compares, which takes as long again, it would
            # mostly warn of; golden scores tell whether the graph computes what it should.
            unchecked = {"check_trace": False}
            decoder = TorchScriptPythonDecoder(
                _Traceable(layers), example_input=(images,), trace_kwargs=unchecked
            )
            model = frontend.convert(frontend.load(decoder))
        model.reshape([-1, *size, 3])
    except Exception as error:  # of many kinds, by what it meets
        raise EngineError(f"OpenVINO cannot convert {extractor.name}: {str(error)[:300]}") from error
    return model


class OpenVinoBackbone:
    """See `engines.RunningBackbone`. All models of a backbone share it, from any threads.

    Pictures of a batch are computed beside each other, each by a share of the threads, which then need not
    wait for each other after every layer; what is left over, and a single picture, by all threads.

    Args:
        alone: the graph for one picture by all threads, or two of which the second goes on where the first
            ends.
        together: the same for one picture by a share of the threads, in several streams; none where each
            picture is computed alone.
        nbytes: of all weights.
    """

    def __init__(self, alone: Sequence[Any], together: Sequence[Any], nbytes: int) -> None:
        self._alone, self._together = _Requests(alone), _Requests(together)
        self._streams = int(together[0].get_property("NUM_STREAMS")) if together else 1
        self.batches: tuple[int, ...] = (1,) if self._streams == 1 else (self._streams, 1)
        self.nbytes = nbytes

    def __call__(self, images: Tensor) -> list[Tensor]:
        pictures = images.numpy()
        maps: list[NDArray[np.float32]] = []
        for start, end in self._rounds(len(pictures)):
            requests = self._alone if end - start == 1 else self._together
            with requests.of(end - start) as taken:
                for i, found in enumerate(_computed(taken, pictures[start:end]), start):
                    maps = maps or [np.empty((len(pictures), *m.shape[1:]), np.float32) for m in found]
                    # Copied: the next batch overwrites them.
                    for whole, [one] in zip(maps, found, strict=True):
                        whole[i] = one
        return [torch.from_numpy(whole) for whole in maps]

    def _rounds(self, n: int) -> Iterator[tuple[int, int]]:
        """Which of n pictures are computed at once: (start, end) of each round."""
        together = n - n % self._streams if self._streams > 1 else 0
        for start in range(0, together, _AT_ONCE):
            yield start, min(start + _AT_ONCE, together)
        for i in range(together, n):
            yield i, i + 1


class _Requests:
    """Requests of a picture each, for a graph or for two that follow each other.

    A request keeps buffers for what it gives: there are as many as pictures that were computed at once, not
    some for each model.

    Attributes:
        idle: those that nobody has taken.
    """

    def __init__(self, graphs: Sequence[Any]) -> None:
        self._graphs = graphs
        self.idle: list[list[Any]] = []

    @contextmanager
    def of(self, n: int) -> Iterator[list[list[Any]]]:
        """Take what n pictures need; not given back if anything fails."""
        taken = [self._one() for _ in range(n)]
        try:
            yield taken
        except BaseException:
            wait_for_all(chain(*taken))
            raise
        self.idle.extend(taken)

    def _one(self) -> list[Any]:
        try:
            return self.idle.pop()  # a list's own operations are atomic
        except IndexError:
            return [graph.create_infer_request() for graph in self._graphs]


def _computed(
    taken: Sequence[Sequence[Any]], pictures: NDArray[np.uint8]
) -> Iterator[list[NDArray[np.float32]]]:
    """Maps of each picture, (1, C_i, H_i, W_i), in the requests' own memory."""
    found: list[list[Any]] = [[] for _ in taken]
    parts = list(zip(*taken, strict=True))
    for request, picture in zip(parts[0], pictures, strict=True):
        request.set_input_tensor(shared_tensor(picture[None]))
        request.start_async()
    for first, second in pairwise(parts):
        for before, after, early in zip(first, second, found, strict=True):
            before.wait()
            *maps, joint = before.output_tensors
            early += maps
            after.set_input_tensor(joint)
            after.start_async()
    for request, early in zip(parts[-1], found, strict=True):
        request.wait()
        yield [output.data for output in (*early, *request.output_tensors)]


class _Traceable(nn.Module):
    """A backbone whose maps come as a tuple, and without a context of inference."""

    def __init__(self, layers: "FeatureExtractor") -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.layers.compute(images))
