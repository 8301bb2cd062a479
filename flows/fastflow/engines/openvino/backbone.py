"""Backbone as an OpenVINO graph."""

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

# Limit of images computed at once, so that output buffers stay bounded: a multiple of 2, 3 and 4 streams.
_MAX_CONCURRENT: Final = 24


def convert(extractor: FrozenBackbone, size: tuple[int, int]) -> Any:
    """Convert a backbone with its preprocessing to a graph, for any number of images of one size.

    The size is fixed, because padding that depends on it (TensorFlow's "same") is computed during the
    conversion. The frontend is called directly: `openvino.convert_model` sends usage data to Intel.

    Args:
        size: (height, width) of the images, (N, height, width, 3) uint8.

    Raises:
        EngineError: OpenVINO cannot convert the backbone.
        WeightsError, BundleError: see `RecordedBackbone.layers`.
    """
    images = torch.zeros((2, *size, 3), dtype=torch.uint8)
    layers = extractor.layers()
    frontend = FrontEndManager().load_by_framework("pytorch")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # torch warns about torch.jit, with which OpenVINO traces, and about every constant.
            warnings.simplefilter("ignore")
            # A second trace to compare would take as long again and mostly warn; golden scores check the
            # graph.
            unchecked = {"check_trace": False}
            decoder = TorchScriptPythonDecoder(
                _Traceable(layers), example_input=(images,), trace_kwargs=unchecked
            )
            model = frontend.convert(frontend.load(decoder))
        model.reshape([-1, *size, 3])
    except Exception as error:  # the conversion raises many classes
        raise EngineError(f"OpenVINO cannot convert {extractor.name}: {str(error)[:300]}") from error
    return model


class OpenVinoBackbone:
    """Backbone shared by all models that use it, from any threads; see `engine.BackboneRunner`.

    Images of a batch are computed in parallel, each by a share of the threads, which then need not
    synchronise after every layer. All threads compute a single image, and the remainder of a batch.

    Args:
        alone: the graph for one image with all threads, or two consecutive graphs.
        together: the same for one image with a share of the threads, in several streams; empty if each
            image is computed alone.
        nbytes: memory of all weights.
    """

    def __init__(self, alone: Sequence[Any], together: Sequence[Any], nbytes: int) -> None:
        self._alone, self._together = _Requests(alone), _Requests(together)
        self._streams = int(together[0].get_property("NUM_STREAMS")) if together else 1
        self.batches: tuple[int, ...] = (1,) if self._streams == 1 else (self._streams, 1)
        self.nbytes = nbytes

    def __call__(self, images: Tensor) -> list[Tensor]:
        arrays = images.numpy()
        maps: list[NDArray[np.float32]] = []
        for start, end in self._rounds(len(arrays)):
            requests = self._alone if end - start == 1 else self._together
            with requests.take(end - start) as taken:
                for i, found in enumerate(_computed(taken, arrays[start:end]), start):
                    maps = maps or [np.empty((len(arrays), *m.shape[1:]), np.float32) for m in found]
                    # Copied, because the next batch overwrites them.
                    for whole, [one] in zip(maps, found, strict=True):
                        whole[i] = one
        return [torch.from_numpy(whole) for whole in maps]

    def _rounds(self, n: int) -> Iterator[tuple[int, int]]:
        """Divide n images into rounds that are computed at once: (start, end) of each."""
        together = n - n % self._streams if self._streams > 1 else 0
        for start in range(0, together, _MAX_CONCURRENT):
            yield start, min(start + _MAX_CONCURRENT, together)
        for i in range(together, n):
            yield i, i + 1


class _Requests:
    """Pool of requests for one image each, with one graph or two consecutive ones.

    Each request keeps output buffers, so models share the pool: it has one request per image computed at
    once.

    Attributes:
        idle: requests that are not in use.
    """

    def __init__(self, graphs: Sequence[Any]) -> None:
        self._graphs = graphs
        self.idle: list[list[Any]] = []

    @contextmanager
    def take(self, n: int) -> Iterator[list[list[Any]]]:
        """Take the requests for n images; they are discarded after an error."""
        taken = [self._take_one() for _ in range(n)]
        try:
            yield taken
        except BaseException:
            wait_for_all(chain(*taken))
            raise
        self.idle.extend(taken)

    def _take_one(self) -> list[Any]:
        try:
            return self.idle.pop()  # atomic
        except IndexError:
            return [graph.create_infer_request() for graph in self._graphs]


def _computed(
    taken: Sequence[Sequence[Any]], images: NDArray[np.uint8]
) -> Iterator[list[NDArray[np.float32]]]:
    """Compute the maps of each image, (1, C_i, H_i, W_i), in the requests' memory."""
    found: list[list[Any]] = [[] for _ in taken]
    parts = list(zip(*taken, strict=True))
    for request, image in zip(parts[0], images, strict=True):
        request.set_input_tensor(shared_tensor(image[None]))
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
    """Backbone that returns its maps as a tuple, without inference mode."""

    def __init__(self, layers: "FeatureExtractor") -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.layers.compute(images))
