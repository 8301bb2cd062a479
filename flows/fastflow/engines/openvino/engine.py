"""OpenVINO as an engine: several times faster than eager torch on a CPU.

A backbone is converted once and its graph kept on disk, see `openvino_cache`. Heads of one shape share their
graphs, one for each size of batch up to the largest; a batch is computed in such portions. A head may get a
graph of its own for a single image, with its weights in it: OpenVINO then need not lay them out anew each
time.
"""

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import Tensor

from flows.fastflow.backbones.memory import count_tensor_bytes
from flows.fastflow.backbones.recorded import FrozenBackbone, record_backbone
from flows.fastflow.config import ScoreRule, Upsampling
from flows.fastflow.engines.openvino import cache as openvino_cache
from flows.fastflow.engines.openvino import pixels as openvino_pixels
from flows.fastflow.engines.openvino.backbone import OpenVinoBackbone, convert
from flows.fastflow.engines.openvino.head import Sizes, build_head_graph, graph_weights
from flows.fastflow.engines.openvino.pixels import PixelsRequest
from flows.fastflow.engines.openvino.primitives import infer, shared_tensor
from flows.fastflow.engines.openvino.split import split_graph
from flows.fastflow.manifest import Precision
from flows.fastflow.model.fused import Energies, FusedHead
from flows.fastflow.model.head import Head
from flows.fastflow.scoring.cpu_scoring import PixelPlanes

# Sizes of batches that heads have graphs of: with a fixed one they are a third faster than with any.
_PORTIONS: Final[tuple[int, ...]] = (8, 4, 2, 1)
# Images of a batch that are computed beside each other, at most, each by its share of the threads.
_STREAMS: Final = 4
# Weights of a backbone that is laid out for that too, at most, as they are in its graph.
_STREAMED_BYTES: Final = 128 * 2**20
# Weights in graphs that are a head's own, of all heads together; the others go on sharing theirs.
_OWN_BYTES: Final = 128 * 2**20
# Pixels of images whose maps are made together, or their planes would take too much memory.
_PORTION_PIXELS: Final = 2**19
_HINTS: Final[dict[Precision, str]] = {"float32": "f32", "openvino-bfloat16": "bf16"}


class OpenVinoEngine:
    """Computes with OpenVINO on the CPU, by as many threads as torch.

    Args:
        precision: float32, or openvino-bfloat16, in which convolutions and what lies between them are
            computed in bfloat16, but for the first layers of a backbone, see `openvino_split`.
        cache: folder for converted backbones; None keeps nothing. Whoever can write to it decides what is
            computed.

    Attributes:
        streams: how many images of a batch are computed beside each other, at most.
    """

    # Of a full batch, and of one for who waits.
    batches: tuple[int, ...] = (8, 1)

    def __init__(self, precision: Precision, cache: Path | None = None) -> None:
        self.precision = precision
        self._rounds = precision != "float32"
        self.name = f"openvino-cpu-{precision.removeprefix('openvino-')}"
        self._cache = cache
        threads = torch.get_num_threads()
        self.streams = _streams(threads)
        self._core = ov.Core()
        # Left to itself it rounds to bfloat16 wherever the processor can.
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # A thread kept to a core waits for it while another one of the service computes there.
            "ENABLE_CPU_PINNING": False,
        }
        self._exact = self._settings | {"INFERENCE_PRECISION_HINT": _HINTS["float32"]}
        # For what is known, and held for a moment alone: batches wait for it.
        self._lock = threading.Lock()
        self._compiling_backbone = threading.Lock()
        self._backbones: WeakKeyDictionary[FrozenBackbone, dict[tuple[int, int], OpenVinoBackbone]]
        self._backbones = WeakKeyDictionary()
        self._heads: dict[tuple[object, Sizes], Any] = {}
        self._pixels: dict[tuple[Sizes, tuple[int, int], Upsampling], PixelsRequest] = {}
        self._owners: WeakSet[_OpenVinoHead] = WeakSet()

    def backbone(self, extractor: FrozenBackbone, input_size: tuple[int, int]) -> OpenVinoBackbone:
        """See `Engine`."""
        known = self._known(extractor, input_size)
        if known is None:
            parts = self._backbone_parts(extractor, input_size)
            with self._compiling_backbone:
                # Who came first may have compiled it.
                known = self._known(extractor, input_size) or self._compile_backbone(parts)
                with self._lock:
                    self._backbones.setdefault(extractor, {})[input_size] = known
        return known

    def _known(self, extractor: FrozenBackbone, input_size: tuple[int, int]) -> OpenVinoBackbone | None:
        with self._lock:
            return self._backbones.get(extractor, {}).get(input_size)

    def head(self, head: Head) -> "_OpenVinoHead":
        """See `Engine`."""
        return _OpenVinoHead(head, self)

    def pixels(self, rule: ScoreRule, size: tuple[int, int]) -> Callable[[Energies], Iterable[PixelPlanes]]:
        """See `Engine`."""
        largest = max(1, _PORTION_PIXELS // math.prod(size))
        rules = [np.asarray([x], np.float32) for x in (rule.gaussian, rule.energy_floor, rule.sharpness)]
        known: dict[Sizes, PixelsRequest] = {}

        def run(energies: Energies) -> Iterator[PixelPlanes]:
            inputs = [np.ascontiguousarray(x.numpy()) for x in (*energies.flow, *energies.gaussian)]
            for start, end in _portions(len(inputs[0]), largest):
                portion = [x[start:end] for x in inputs]
                sizes = tuple(x.shape for x in portion[: len(energies.flow)])
                if sizes not in known:
                    known[sizes] = self._pixels_request((sizes, size, rule.enlarging))
                for product, score_map in zip(*known[sizes]([*portion, *rules]), strict=True):
                    yield PixelPlanes(product, score_map, len(sizes))

        return run

    def shared_graph(self, fused: FusedHead, sizes: Sizes) -> Any:
        """The compiled graph of heads of this one's shape, for maps of these sizes."""
        key = (_shape(fused), sizes)
        with self._lock:
            known = self._heads.get(key)
        if known is None:
            # Not under the lock: batches of other sizes need not wait.
            compiled = self._compile(build_head_graph(fused, sizes), self._settings)
            with self._lock:
                known = self._heads.setdefault(key, compiled)
        return known

    def own_graph(self, head: "_OpenVinoHead", fused: FusedHead, sizes: Sizes, nbytes: int) -> Any | None:
        """A compiled graph of one head alone, for maps of one image; None if there is no room for it.

        Args:
            head: whose it is.
            fused: the head's weights.
            sizes: of the maps.
            nbytes: of the weights.
        """
        with self._lock:
            taken = sum(owner.own_bytes for owner in self._owners if owner is not head)
            if nbytes + taken > _OWN_BYTES:
                return None
            head.own_bytes = nbytes
            self._owners.add(head)
        return self._compile(build_head_graph(fused, sizes, own=True), self._settings)

    def _pixels_request(self, key: tuple[Sizes, tuple[int, int], Upsampling]) -> PixelsRequest:
        with self._lock:
            known = self._pixels.get(key)
        if known is None:
            made = PixelsRequest(self._compile(openvino_pixels.build_pixel_graph(*key), self._exact))
            with self._lock:
                known = self._pixels.setdefault(key, made)
        return known

    def _compile(self, model: ov.Model, settings: dict[str, Any]) -> Any:
        return self._core.compile_model(model, "CPU", settings)

    def _backbone_parts(self, extractor: FrozenBackbone, size: tuple[int, int]) -> tuple[Any, ...]:
        """The graph of a backbone for one image, or its two parts, each of a precision."""
        model = self._converted(extractor, size)
        model.reshape([1, *size, 3])
        return (split_graph(model, size) if self._rounds else None) or (model,)

    def _converted(self, extractor: FrozenBackbone, size: tuple[int, int]) -> Any:
        if self._cache is None:
            return convert(extractor, size)
        path = openvino_cache.cached_path(self._cache, record_backbone(extractor), size)
        if (kept := openvino_cache.read_graph(self._core, path)) is not None:
            return kept
        model = convert(extractor, size)
        # Named anew: timm is imported by now, and known by the version that converted.
        openvino_cache.write_graph(
            model, openvino_cache.cached_path(self._cache, record_backbone(extractor), size)
        )
        return model

    def _compile_backbone(self, parts: Sequence[Any]) -> OpenVinoBackbone:
        constants = [op for part in parts for op in part.get_ops() if op.get_type_name() == "Constant"]
        nbytes = sum(op.get_byte_size() for op in constants)
        settings = [self._exact, self._settings][-len(parts) :]

        def compiled(streams: int) -> list[Any]:
            graphs = zip(parts, settings, strict=True)
            return [self._compile(graph, hints | {"NUM_STREAMS": streams}) for graph, hints in graphs]

        streams = self.streams if nbytes <= _STREAMED_BYTES else 1
        together = compiled(streams) if streams > 1 else []
        # Each lays out the weights for itself.
        return OpenVinoBackbone(compiled(1), together, (2 if together else 1) * nbytes)


class _OpenVinoHead:
    """See `engines.RunningHead`. Weights are set once, in its own graph or in requests for sizes of batch.

    Attributes:
        own_bytes: weights in the graph that is this head's alone.
    """

    def __init__(self, head: Head, engine: OpenVinoEngine) -> None:
        self._fused = FusedHead(head)
        self._engine = engine
        self._requests: dict[Sizes, Any] = {}
        self.own_bytes = 0
        self._weights = [weight.contiguous() for weight in graph_weights(self._fused).values()]
        self.nbytes = count_tensor_bytes((*self._fused.buffers(), *self._weights))

    def __call__(self, maps: Sequence[Tensor]) -> Energies:
        whole = [np.ascontiguousarray(m.numpy()) for m in maps]
        found = [self._computed([m[start:end] for m in whole]) for start, end in _portions(len(whole[0]))]
        outputs = [torch.from_numpy(np.concatenate(column)) for column in zip(*found, strict=True)]
        scales = len(maps)
        return Energies(outputs[:scales], outputs[scales : 2 * scales], *outputs[2 * scales :])

    def _computed(self, maps: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        request = self._request(tuple(m.shape for m in maps))
        for i, m in enumerate(maps):
            request.set_input_tensor(i, shared_tensor(m))
        infer(request)
        return [output.data.copy() for output in request.output_tensors]

    def specialise(self, sizes: Sequence[tuple[int, ...]]) -> None:
        """See `engines.RunningHead`."""
        for n in _PORTIONS:
            self._engine.shared_graph(self._fused, tuple((n, *size) for size in sizes))
        of_one = tuple((1, *size) for size in sizes)
        graph = self._engine.own_graph(self, self._fused, of_one, sum(w.nbytes for w in self._weights))
        if graph is not None:
            # At once for the thread that computes: it takes what it finds.
            self._requests[of_one] = graph.create_infer_request()

    def _request(self, sizes: Sizes) -> Any:
        request = self._requests.get(sizes)
        if request is None:
            request = self._engine.shared_graph(self._fused, sizes).create_infer_request()
            # The weights follow the maps.
            for i, weight in enumerate(self._weights, start=len(sizes)):
                request.set_input_tensor(i, shared_tensor(weight.numpy()))
            request = self._requests.setdefault(sizes, request)
        return request


def _shape(fused: FusedHead) -> tuple[object, ...]:
    """What heads have in common that share graphs."""
    settings = (fused.normaliser.mode, fused.normaliser.windows, fused.bound)
    return (*settings, tuple((name, tuple(w.shape)) for name, w in graph_weights(fused).items()))


def _streams(threads: int) -> int:
    """How many images are computed beside each other; threads that cannot be shared out would be idle."""
    return max(n for n in range(1, _STREAMS + 1) if threads % n == 0)


def _portions(n: int, largest: int = _PORTIONS[0]) -> list[tuple[int, int]]:
    """n as portions that there are graphs of, up to the largest: (start, end) of each."""
    found, start = [], 0
    for size in (size for size in _PORTIONS if size <= largest):
        while n - start >= size:
            found.append((start, start + size))
            start += size
    return found
