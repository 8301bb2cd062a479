"""A backbone as a graph of OpenVINO: converted once, and kept on disk for the next start."""

import hashlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn

from flows.fastflow.engines.errors import EngineError
from flows.fastflow.engines.openvino_parts import infer, portions, shared
from flows.fastflow.plain_files import temporary_directory
from flows.fastflow.recorded_backbone import FrozenBackbone, record_of

if TYPE_CHECKING:
    from flows.fastflow.features import FeatureExtractor

logger = logging.getLogger("flowgauge.openvino")


def converted(core: Any, cache: Path | None, extractor: FrozenBackbone, size: tuple[int, int]) -> Any:
    """What `convert` gives, from a folder where it was kept if it is there, and kept for the next time.

    Args:
        core: OpenVINO's.
        cache: the folder; None keeps nothing.
        extractor: the backbone.
        size: (height, width) of the pictures.

    Raises:
        EngineError: OpenVINO cannot convert it.
        WeightsError, BundleError: as `RecordedBackbone.layers`.
    """
    if cache is None:
        return convert(extractor, size)
    try:
        return core.read_model(cache / f"{_identity(extractor, size)}.xml")
    except RuntimeError:  # it is not there, or damaged
        model = convert(extractor, size)
    # Named anew: timm is imported by now, and known by the version that converted.
    path = cache / f"{_identity(extractor, size)}.xml"
    try:
        _keep(model, path)
        # As the next start will have it, or what is compiled now would be compiled again then.
        return core.read_model(path)
    except (OSError, RuntimeError) as error:  # such as a full disk, for which no model is refused
        logger.warning("%s cannot be kept (%s): the next start converts it again", path, error)
        return model


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
            decoder = TorchScriptPythonDecoder(_Traceable(layers), example_input=(images,))
            model = frontend.convert(frontend.load(decoder))
        model.reshape([-1, *size, 3])
    except Exception as error:  # of many kinds, by what it meets
        raise EngineError(f"OpenVINO cannot convert {extractor.name}: {str(error)[:300]}") from error
    return model


def _keep(model: Any, path: Path) -> None:
    with temporary_directory(path.parent) as temporary:
        ov.save_model(model, temporary / path.name, compress_to_fp16=False)
        # The weights first: who finds the graph must find them.
        for suffix in (".bin", ".xml"):
            (temporary / path.name).with_suffix(suffix).replace(path.with_suffix(suffix))


class OpenVinoBackbone:
    """See `engines.RunningBackbone`. All models of a backbone share it, from any threads.

    A request keeps buffers, megabytes: of each size of batch there are as many as threads that computed at
    once, not one for each model.

    Args:
        graphs: by size of batch, falling to 1, the compiled graph, or two of which the second goes on where
            the first ends.
        nbytes: of their weights.
    """

    def __init__(self, graphs: Mapping[int, Sequence[Any]], nbytes: int) -> None:
        self._graphs = graphs
        self._idle: dict[int, list[list[Any]]] = {size: [] for size in graphs}
        self.batches = tuple(graphs)
        self.nbytes = nbytes

    def __call__(self, images: Tensor) -> list[Tensor]:
        pictures = images.numpy()
        maps: list[NDArray[np.float32]] = []
        for start, end in portions(len(pictures), self.batches):
            with self._requests(end - start) as requests:
                found = _computed(requests, pictures[start:end])
                maps = maps or [np.empty((len(pictures), *m.shape[1:]), m.dtype) for m in found]
                # Copied: the next batch overwrites them.
                for whole, part in zip(maps, found, strict=True):
                    whole[start:end] = part
        return [torch.from_numpy(whole) for whole in maps]

    @contextmanager
    def _requests(self, size: int) -> Iterator[list[Any]]:
        try:
            requests = self._idle[size].pop()  # a list's own operations are atomic
        except IndexError:
            requests = [graph.create_infer_request() for graph in self._graphs[size]]
        yield requests
        self._idle[size].append(requests)


def _computed(requests: Sequence[Any], pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """The maps of a portion, in the requests' own memory."""
    outputs, found = [shared(pictures)], []
    for request in requests:
        request.set_input_tensor(outputs.pop())
        infer(request)
        found += outputs
        outputs = list(request.output_tensors)
    return [output.data for output in (*found, *outputs)]


class _Traceable(nn.Module):
    """A backbone whose maps come as a tuple, and without a context of inference."""

    def __init__(self, layers: "FeatureExtractor") -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.layers.compute(images))


def _identity(extractor: FrozenBackbone, size: tuple[int, int]) -> str:
    """A name for a converted backbone: of its weights, its stages, and all that had a part in converting.

    What is recorded of it, too: a graph under this name was made of layers that had it all.
    """
    # What is imported may be older than what is installed by now.
    timm = sys.modules["timm"].__version__ if "timm" in sys.modules else version("timm")
    parts = (record_of(extractor), size, ov.__version__, timm, torch.__version__)
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return f"{extractor.name}-{digest[:24]}"
