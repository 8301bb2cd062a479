"""OpenVINO engine, several times faster than eager torch on a CPU.

A backbone is converted once and its graph is kept on disk, see `cache`. Heads of one shape share graphs, one
for each portion size of a batch. A head may get its own graph for a single image, which contains the
weights: OpenVINO then need not lay them out each time.
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

# Batch sizes of the heads' graphs: graphs of a fixed size are a third faster than those of any size.
_PORTIONS: Final[tuple[int, ...]] = (8, 4, 2, 1)
# Limit of images of a batch that are computed in parallel, each by a share of the threads.
_STREAMS: Final = 4
# Limit of the weights in a backbone's graph for a second layout in parallel streams.
_STREAMED_BYTES: Final = 128 * 2**20
# Limit of the weights in graphs of single heads, for all heads together; other heads share graphs.
_OWN_BYTES: Final = 128 * 2**20
# Limit of pixels whose maps are computed together, for the memory of their planes.
_PORTION_PIXELS: Final = 2**19
_HINTS: Final[dict[Precision, str]] = {"float32": "f32", "openvino-bfloat16": "bf16"}


class OpenVinoEngine:
    """Engine on the CPU with as many threads as torch.

    Args:
        precision: float32, or openvino-bfloat16, which computes everything except the first layers of a
            backbone in bfloat16, see `split`.
        cache: folder for converted backbones, or None. Write access to it controls what is computed.

    Attributes:
        streams: maximum number of images of a batch that are computed in parallel.
    """

    # A full batch, and a single waiting image.
    batches: tuple[int, ...] = (8, 1)

    def __init__(self, precision: Precision, cache: Path | None = None) -> None:
        self.precision = precision
        self._rounds = precision != "float32"
        self.name = f"openvino-cpu-{precision.removeprefix('openvino-')}"
        self._cache = cache
        threads = torch.get_num_threads()
        self.streams = _streams(threads)
        self._core = ov.Core()
        # By default OpenVINO rounds to bfloat16 if the processor supports it.
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # A pinned thread would wait for its core while another thread of the service uses it.
            "ENABLE_CPU_PINNING": False,
        }
        self._exact = self._settings | {"INFERENCE_PRECISION_HINT": _HINTS["float32"]}
        # Protects the dictionaries; held only for moments, because batches wait for it.
        self._lock = threading.Lock()
        self._compiling_backbone = threading.Lock()
        self._backbones: WeakKeyDictionary[FrozenBackbone, dict[tuple[int, int], OpenVinoBackbone]]
        self._backbones = WeakKeyDictionary()
        self._heads: dict[tuple[object, Sizes], Any] = {}
        self._pixels: dict[tuple[Sizes, tuple[int, int], Upsampling], PixelsRequest] = {}
        self._owners: WeakSet[_OpenVinoHead] = WeakSet()

    def backbone(self, extractor: FrozenBackbone, input_size: tuple[int, int]) -> OpenVinoBackbone:
        known = self._known(extractor, input_size)
        if known is None:
            parts = self._backbone_parts(extractor, input_size)
            with self._compiling_backbone:
                # Another thread may have compiled it meanwhile.
                known = self._known(extractor, input_size) or self._compile_backbone(parts)
                with self._lock:
                    self._backbones.setdefault(extractor, {})[input_size] = known
        return known

    def _known(self, extractor: FrozenBackbone, input_size: tuple[int, int]) -> OpenVinoBackbone | None:
        with self._lock:
            return self._backbones.get(extractor, {}).get(input_size)

    def head(self, head: Head, *, describes: bool = False) -> "_OpenVinoHead":
        return _OpenVinoHead(FusedHead(head, describes=describes), self)

    def pixels(self, rule: ScoreRule, size: tuple[int, int]) -> Callable[[Energies], Iterable[PixelPlanes]]:
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
        """Return the compiled graph of heads of this shape, for maps of these sizes."""
        key = (_shape(fused), sizes)
        with self._lock:
            known = self._heads.get(key)
        if known is None:
            # Compiled outside the lock, so that batches of other sizes need not wait.
            compiled = self._compile(build_head_graph(fused, sizes), self._settings)
            with self._lock:
                known = self._heads.setdefault(key, compiled)
        return known

    def own_graph(self, head: "_OpenVinoHead", fused: FusedHead, sizes: Sizes, nbytes: int) -> Any | None:
        """Compile a graph of one head for maps of one image; None if the memory limit is reached.

        Args:
            head: owner of the graph.
            fused: the head's weights.
            sizes: sizes of the maps.
            nbytes: memory of the weights.
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
        """Return the graph of a backbone for one image, or its two parts of different precision."""
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
        # Named again: timm is now imported, so the path contains the version that converted.
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
        # Each compiled graph has its own layout of the weights.
        return OpenVinoBackbone(compiled(1), together, (2 if together else 1) * nbytes)


class _OpenVinoHead:
    """Head with weights in its own graph or set once in requests; see `engine.HeadRunner`.

    Attributes:
        own_bytes: memory of the weights in this head's own graph.
    """

    def __init__(self, fused: FusedHead, engine: OpenVinoEngine) -> None:
        self._fused = fused
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
        """See `engine.HeadRunner`."""
        for n in _PORTIONS:
            self._engine.shared_graph(self._fused, tuple((n, *size) for size in sizes))
        of_one = tuple((1, *size) for size in sizes)
        graph = self._engine.own_graph(self, self._fused, of_one, sum(w.nbytes for w in self._weights))
        if graph is not None:
            # One assignment, so the computing thread sees either the old or the new request.
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
    """Return the key of heads that can share graphs."""
    settings = (fused.normaliser.mode, fused.normaliser.windows, fused.bound, fused.describes)
    return (*settings, tuple((name, tuple(w.shape)) for name, w in graph_weights(fused).items()))


def _streams(threads: int) -> int:
    """Return the number of images to compute in parallel, a divisor of the threads so none is idle."""
    return max(n for n in range(1, _STREAMS + 1) if threads % n == 0)


def _portions(n: int, largest: int = _PORTIONS[0]) -> list[tuple[int, int]]:
    """Divide n images into portions up to the largest: (start, end) of each."""
    portions, start = [], 0
    for size in (size for size in _PORTIONS if size <= largest):
        while n - start >= size:
            portions.append((start, start + size))
            start += size
    return portions
