"""A backbone as a graph of OpenVINO: converted once, and kept on disk for the next start."""

import hashlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn

from flows.fastflow.engines.errors import EngineError
from flows.fastflow.engines.openvino_maps import maps_of
from flows.fastflow.engines.openvino_parts import data_of, let_end, shared, streams_of
from flows.fastflow.manifest import Backbone
from flows.fastflow.plain_files import temporary_directory
from flows.fastflow.recorded_backbone import FrozenBackbone, record_of

if TYPE_CHECKING:
    from flows.fastflow.features import FeatureExtractor

logger = logging.getLogger("flowgauge.openvino")

# Pictures that are begun at once, at most, or buffers for what they give would grow without bound. It is
# whole rounds of 2, 3 or 4 streams.
_AT_ONCE: Final = 24


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
        return core.read_model(kept_as(cache, record_of(extractor), size))
    except RuntimeError:  # it is not there, or damaged
        model = convert(extractor, size)
    # Named anew: timm is imported by now, and known by the version that converted.
    path = kept_as(cache, record_of(extractor), size)
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


def _keep(model: Any, path: Path) -> None:
    with temporary_directory(path.parent) as temporary:
        ov.save_model(model, temporary / path.name, compress_to_fp16=False)
        # The weights first: who finds the graph must find them.
        for suffix in (".bin", ".xml"):
            (temporary / path.name).with_suffix(suffix).replace(path.with_suffix(suffix))


class OpenVinoBackbone:
    """See `engines.RunningBackbone`. All models of a backbone share it, from any threads.

    Pictures of a batch are computed beside each other, each by a share of the threads, which then need not
    wait for each other after every layer; what is left over, and a single picture, by all threads. Maps come
    as float32, or as `openvino_maps` hands them over.

    Args:
        alone: the graph for one picture by all threads, or two of which the second goes on where the first
            ends.
        together: the same for one picture by a share of the threads, in several streams; none where each
            picture is computed alone.
        nbytes: of all weights.
    """

    def __init__(self, alone: Sequence[Any], together: Sequence[Any], nbytes: int) -> None:
        self._alone, self._together = _Requests(alone), _Requests(together)
        self._streams = streams_of(together[0]) if together else 1
        self.batches: tuple[int, ...] = (1,) if self._streams == 1 else (self._streams, 1)
        self.nbytes = nbytes

    def __call__(self, images: Tensor) -> list[Tensor]:
        pictures = images.numpy()
        maps: list[NDArray[Any]] = []
        for start, end in self._rounds(len(pictures)):
            requests = self._alone if end - start == 1 else self._together
            with requests.of(end - start) as taken:
                for i, found in enumerate(_computed(taken, pictures[start:end]), start):
                    maps = maps or [np.empty((len(pictures), *m.shape[1:]), m.dtype) for m in found]
                    # Copied: the next batch overwrites them.
                    for whole, [one] in zip(maps, found, strict=True):
                        whole[i] = one
        return [maps_of(whole) if whole.dtype == np.uint16 else torch.from_numpy(whole) for whole in maps]

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
            let_end(chain(*taken))
            raise
        self.idle.extend(taken)

    def _one(self) -> list[Any]:
        try:
            return self.idle.pop()  # a list's own operations are atomic
        except IndexError:
            return [graph.create_infer_request() for graph in self._graphs]


def _computed(taken: Sequence[Sequence[Any]], pictures: NDArray[np.uint8]) -> Iterator[list[Any]]:
    """Of each picture its maps, (1, C_i, H_i, W_i) or handed over, in the requests' own memory."""
    found: list[list[Any]] = [[] for _ in taken]
    parts = list(zip(*taken, strict=True))
    for request, picture in zip(parts[0], pictures, strict=True):
        request.set_input_tensor(shared(picture[None]))
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
        yield [data_of(output) for output in (*early, *request.output_tensors)]


class _Traceable(nn.Module):
    """A backbone whose maps come as a tuple, and without a context of inference."""

    def __init__(self, layers: "FeatureExtractor") -> None:
        super().__init__()
        self.layers = layers

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.layers.compute(images))


def kept_as(cache: Path, backbone: Backbone, size: tuple[int, int]) -> Path:
    """The file of a converted backbone, named by its weights, its stages, and all that had a part in it.

    What is recorded of it, too: a graph under this name was made of layers that had it all.
    """
    # What is imported may be older than what is installed by now.
    timm = sys.modules["timm"].__version__ if "timm" in sys.modules else version("timm")
    parts = (backbone, size, ov.__version__, timm, torch.__version__)
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return cache / f"{backbone.name}-{digest[:24]}.xml"
