"""OpenVINO as an engine: several times faster than eager torch on a CPU.

The backbone is converted once and its graph kept on disk. Heads of one shape share their graphs, see
`openvino_head`: one for each size of batch, up to the largest; a batch is computed in such portions. A head
may get graphs of its own, with its weights in them, see `openvino_own`: OpenVINO then need not lay them out
anew for every batch.
"""

import logging
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

from flows.fastflow.alike import are_alike
from flows.fastflow.engines import computes_bfloat16, openvino_cache, openvino_pixels
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.engines.openvino_backbone import OpenVinoBackbone, converted, kept_as
from flows.fastflow.engines.openvino_head import Sizes, build, weights_of
from flows.fastflow.engines.openvino_maps import bits_of, hand_over
from flows.fastflow.engines.openvino_own import Group, OwnGraphs, groups_of
from flows.fastflow.engines.openvino_parts import infer, numbered, shared
from flows.fastflow.engines.openvino_pixels import PixelsRequest
from flows.fastflow.engines.openvino_rounding import round_convolutions, rounded_beside
from flows.fastflow.engines.openvino_split import split
from flows.fastflow.engines.openvino_stem import stem_in_bfloat16
from flows.fastflow.engines.openvino_winograd import fewest_channels, rewrite
from flows.fastflow.enlarging import Enlarging
from flows.fastflow.finish import Pixels
from flows.fastflow.fused import Energies, FusedHead
from flows.fastflow.head import Head
from flows.fastflow.manifest import Backbone, Precision
from flows.fastflow.memory import memory_of
from flows.fastflow.recorded_backbone import FrozenBackbone, record_of
from flows.fastflow.score import ScoreRule

logger = logging.getLogger("flowgauge.openvino")

# Sizes of batches that heads have graphs of: with a fixed one they are a third faster than with any.
_PORTIONS: Final[tuple[int, ...]] = (8, 4, 2, 1)
# Pictures of a batch that are computed beside each other, at most, each by its share of the threads.
_STREAMS: Final = 4
# Weights of a backbone that is laid out for that too, at most, as they are in its graph.
_STREAMED_BYTES: Final = 128 * 2**20
# Of a full batch, and of one for who waits: those that a start waits for.
_FIRST_PORTIONS: Final[tuple[int, ...]] = (8, 1)
# Weights in graphs that are a head's own, of all heads together; the others go on sharing theirs.
_OWN_BYTES: Final = 128 * 2**20
# Pixels of pictures whose maps are made together, or their planes would take too much memory.
_PORTION_PIXELS: Final = 2**19
# The share by which rows of a batch may differ from what is found alone: they are rounded in other orders.
_DIFFER: Final = 5e-2
_HINTS: Final[dict[Precision, str]] = {"float32": "f32", "openvino-bfloat16": "bf16"}


class OpenVinoEngine:
    """Computes with OpenVINO on the CPU, by as many threads as torch.

    Args:
        precision: float32, or openvino-bfloat16, in which convolutions and what lies between them are
            computed in bfloat16, by weights that were rounded together, see `openvino_rounding`; but for the
            first layers of a backbone, see `openvino_split`, or of ResNets `openvino_stem`. Then maps are
            bfloat16 too, see `openvino_maps`.
        cache: folder for converted backbones and compiled graphs; None keeps nothing. Whoever can write to it
            decides what is computed.
        rewrites: whether a backbone's convolutions may be written anew for speed: 3x3 ones by tiles in
            float32, see `openvino_winograd`, in bfloat16 the one of pixels, see `openvino_stem`. None is
            where the processor is one that gains by it.

    Attributes:
        streams: how many pictures of a batch are computed beside each other, at most.
    """

    batches = _FIRST_PORTIONS

    def __init__(
        self, precision: Precision, cache: Path | None = None, *, rewrites: bool | None = None
    ) -> None:
        self._rewrites = _gains_by_rewriting(precision) if rewrites is None else rewrites
        self.precision = precision
        self._rounds = precision != "float32"
        self.name = f"openvino-cpu-{precision.removeprefix('openvino-')}"
        self._cache = openvino_cache.opened(cache)
        self._threads = torch.get_num_threads()
        self.streams = _streams(self._threads)
        self._core = ov.Core()
        # Left to itself it rounds to bfloat16 wherever the processor can.
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "PERFORMANCE_HINT": "LATENCY",
            # A thread kept to a core waits for it while another one of the service computes there.
            "ENABLE_CPU_PINNING": False,
        }
        if self._cache is not None:
            self._settings["CACHE_DIR"] = str(self._cache)
        self._exact = self._settings | {"INFERENCE_PRECISION_HINT": _HINTS["float32"]}
        # For what is known, and held for a moment alone: batches wait for it.
        self._lock = threading.Lock()
        self._compiling_backbone = threading.Lock()
        self._backbones: WeakKeyDictionary[FrozenBackbone, dict[tuple[int, int], OpenVinoBackbone]]
        self._backbones = WeakKeyDictionary()
        self._heads: dict[tuple[object, Sizes], Any] = {}
        self._looked_at: set[object] = set()  # shapes of heads whose graphs were compared
        self._pixels: dict[tuple[Sizes, tuple[int, int], Enlarging], PixelsRequest] = {}
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

    def pixels(self, rule: ScoreRule, size: tuple[int, int]) -> Callable[[Energies], Iterable[Pixels]]:
        """See `Engine`."""
        largest = max(1, _PORTION_PIXELS // math.prod(size))
        rules = [np.asarray([x], np.float32) for x in (rule.gaussian, rule.energy_floor, rule.sharpness)]
        known: dict[Sizes, PixelsRequest] = {}

        def run(energies: Energies) -> Iterator[Pixels]:
            inputs = [np.ascontiguousarray(x.numpy()) for x in (*energies.flow, *energies.gaussian)]
            for start, end in _portions(len(inputs[0]), largest):
                portion = [x[start:end] for x in inputs]
                sizes = tuple(x.shape for x in portion[: len(energies.flow)])
                if sizes not in known:
                    known[sizes] = self._pixels_request((sizes, size, rule.enlarging))
                for product, score_map in zip(*known[sizes]([*portion, *rules]), strict=True):
                    yield Pixels(product, score_map, len(sizes))

        return run

    def has_compiled(self, backbone: Backbone, input_size: tuple[int, int]) -> bool:
        """See `Engine`."""
        if self._cache is None:
            return False
        kept = kept_as(self._cache, backbone, input_size)
        return kept.is_file() and (not self._rounds or rounded_beside(kept).is_file())

    def forget(self) -> bool:
        """See `Engine`."""
        if self._cache is None:
            return False
        with self._compiling_backbone:
            openvino_cache.clear(self._cache)
        with self._lock:
            self._backbones.clear()
            self._heads.clear()
            self._pixels.clear()
            self._looked_at.clear()
        return True

    def shared_graph(self, fused: FusedHead, sizes: Sizes) -> Any:
        """The compiled graph of heads of this one's shape, for maps of these sizes."""
        key = (_shape(fused), sizes)
        with self._lock:
            known = self._heads.get(key)
        if known is None:
            # Not under the lock: batches of other sizes need not wait.
            model = build(fused, sizes, bfloat16=self._rounds)
            compiled = self._compile(model, self._settings)
            with self._lock:
                known = self._heads.setdefault(key, compiled)
        return known

    def forget_graphs(self, fused: FusedHead) -> bool:
        """Drop the shared graphs of heads of this one's shape, and what is on disk; False without a disk."""
        if self._cache is None:
            return False
        with self._compiling_backbone:
            openvino_cache.clear(self._cache)
        with self._lock:
            self._heads = {key: graph for key, graph in self._heads.items() if key[0] != _shape(fused)}
        return True

    def once_for_shape(self, fused: FusedHead, look: Callable[[], None]) -> None:
        """Look at the shared graphs of heads of this one's shape, unless somebody has."""
        with self._lock:
            if _shape(fused) in self._looked_at:
                return
            self._looked_at.add(_shape(fused))
        look()

    def own_graphs(self, fused: FusedHead, sizes: Sizes) -> OwnGraphs:
        """Of one head alone, for maps of one picture. Not kept on disk: every version would leave some."""
        settings = _kept_nowhere(self._settings)

        def compiled(scales: range, **how: int) -> Group:
            model = build(fused, sizes, own=True, bfloat16=self._rounds, scales=scales)
            pictures = sum(i >= fused.picture.first for i in scales)
            return Group(self._compile(model, settings | how), scales, pictures)

        groups = groups_of(len(sizes), self._threads)
        # Of an odd number the finest scale gets one thread more.
        shares = [(self._threads + i) // len(groups) for i in reversed(range(len(groups)))]
        pairs = zip(groups, shares, strict=True)
        alone = [compiled(group, INFERENCE_NUM_THREADS=share) for group, share in pairs]
        if self.streams == 1:
            return OwnGraphs(alone, None)
        return OwnGraphs(alone, compiled(range(len(sizes)), NUM_STREAMS=self.streams))

    def as_taken(self, maps: Tensor) -> NDArray[Any]:
        """Maps as heads' graphs take them: not copied if they are from this engine's backbone."""
        return bits_of(maps) if self._rounds else np.ascontiguousarray(maps.numpy())

    def make_room(self, head: "_OpenVinoHead", nbytes: int) -> bool:
        """Whether there is room for so many bytes in graphs of a head's own; then they are counted."""
        with self._lock:
            if nbytes + sum(owner.own_bytes for owner in self._owners if owner is not head) > _OWN_BYTES:
                return False
            head.own_bytes = nbytes
            self._owners.add(head)
            return True

    def _pixels_request(self, key: tuple[Sizes, tuple[int, int], Enlarging]) -> PixelsRequest:
        with self._lock:
            known = self._pixels.get(key)
        if known is None:
            made = PixelsRequest(self._core.compile_model(openvino_pixels.build(*key), "CPU", self._exact))
            with self._lock:
                known = self._pixels.setdefault(key, made)
        return known

    def _compile(self, model: ov.Model, settings: dict[str, Any]) -> Any:
        return self._core.compile_model(model, "CPU", settings)

    def _backbone_parts(self, extractor: FrozenBackbone, size: tuple[int, int]) -> list[Any]:
        """The graph of a backbone for one picture, or its two parts, each of a precision."""
        model = converted(self._core, self._cache, extractor, size)
        model.reshape([1, *size, 3])
        if not self._rounds:
            if self._rewrites and rewrite(model):
                numbered(model)
            return [model]
        parts: tuple[Any, ...] = (model,)
        if not (self._rewrites and stem_in_bfloat16(self._core, _kept_nowhere(self._exact), model, size)):
            parts = split(model, size) or parts
        kept = None
        if self._cache is not None:
            kept = rounded_beside(kept_as(self._cache, record_of(extractor), size))
        round_convolutions(self._core, _kept_nowhere(self._exact), parts, size, kept)
        *before, last = parts
        # The first part's last output is what the second takes.
        handing = [hand_over(part, len(part.outputs) - 1) for part in before]
        return [numbered(part) for part in (*handing, hand_over(last, len(last.outputs)))]

    def _compile_backbone(self, parts: Sequence[Any]) -> OpenVinoBackbone:
        constants = [op for part in parts for op in part.get_ops() if op.get_type_name() == "Constant"]
        nbytes = sum(op.get_byte_size() for op in constants)
        settings = [self._exact, self._settings][-len(parts) :]

        def compiled(streams: int) -> list[Any]:
            how = {"NUM_STREAMS": streams}
            graphs = zip(parts, settings, strict=True)
            return [self._core.compile_model(graph, "CPU", hints | how) for graph, hints in graphs]

        streams = self.streams if nbytes <= _STREAMED_BYTES else 1
        together = compiled(streams) if streams > 1 else []
        alone = self._kept(lambda: compiled(1))
        # Each lays out the weights for itself.
        return OpenVinoBackbone(alone, together, (2 if together else 1) * nbytes)

    def _kept(self, compiled: Callable[[], list[Any]]) -> list[Any]:
        """Graphs, and a word in the log if they come from no disk and went to none: OpenVINO says nothing."""
        if self._cache is None:
            return compiled()
        before = openvino_cache.blobs(self._cache)
        graphs = compiled()
        found = all(graph.get_property("LOADED_FROM_CACHE") for graph in graphs)
        if not found and openvino_cache.blobs(self._cache) == before:
            openvino_cache.warn_of_none_kept(self._cache)
        return graphs


class _OpenVinoHead:
    """See `engines.RunningHead`. Weights are set once, in its own graphs or in requests for sizes of batch.

    Attributes:
        own_bytes: weights in the graphs that are this head's alone.
    """

    def __init__(self, head: Head, engine: OpenVinoEngine) -> None:
        self._fused = FusedHead(head)
        self._engine = engine
        self._shared: dict[Sizes, Any] = {}
        self._own: tuple[Sizes, OwnGraphs] | None = None
        self.own_bytes = 0
        self._weights = [weight.contiguous() for weight in weights_of(self._fused).values()]
        self.nbytes = memory_of((*self._fused.buffers(), *self._weights))

    def __call__(self, maps: Sequence[Tensor]) -> Energies:
        of_one = tuple((1, *m.shape[1:]) for m in maps)
        own = self._own
        if own is not None and own[0] == of_one:
            found = own[1]([self._engine.as_taken(m) for m in maps])
        else:
            found = self._by_shared(maps)
        outputs = [torch.from_numpy(column) for column in found]
        scales = len(maps)
        return Energies(outputs[:scales], outputs[scales : 2 * scales], *outputs[2 * scales :])

    def _by_shared(self, maps: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        found = []
        whole = [self._engine.as_taken(m) for m in maps]
        for start, end in _portions(len(whole[0])):
            request = self._request(tuple((end - start, *m.shape[1:]) for m in maps))
            for i, m in enumerate(whole):
                request.set_input_tensor(i, shared(m[start:end]))
            infer(request)
            found.append([output.data.copy() for output in request.output_tensors])
        return [np.concatenate(column) for column in zip(*found, strict=True)]

    def specialise(self, sizes: Sequence[tuple[int, ...]]) -> None:
        """See `engines.RunningHead`."""

        def of(n: int) -> Sizes:
            return tuple((n, *size) for size in sizes)

        for n in _PORTIONS:
            self._engine.shared_graph(self._fused, of(n))
        self._engine.once_for_shape(self._fused, lambda: self._expect_sound([of(n) for n in _PORTIONS]))
        # Those for a picture alone share the weights out, the one for several has them all.
        graphs = 2 if self._engine.streams > 1 else 1
        if not self._engine.make_room(self, graphs * sum(w.nbytes for w in self._weights)):
            return
        try:
            # At once for the thread that computes: it takes what it finds.
            self._own = (of(1), self._engine.own_graphs(self._fused, of(1)))
        except Exception:
            self._own, self.own_bytes = None, 0
            raise

    def _expect_sound(self, batches: Sequence[Sizes]) -> None:
        """Compare graphs for several pictures with the one for a single picture, and make all anew once.

        What is kept on disk may be damaged there, and golden pictures are scored one by one.

        Raises:
            EngineError: they differ although they were made anew.
        """
        for anew in (False, True):
            *several, alone = (self._found_by(sizes) for sizes in batches)
            pairs = [pair for found in several for pair in zip(found, alone, strict=True)]
            if all(are_alike(rows, one, _DIFFER) for rows, one in pairs):
                return
            if anew or not self._engine.forget_graphs(self._fused):
                break
            self._shared.clear()
            logger.warning("graphs for several pictures are damaged; all that was compiled is made anew")
        raise EngineError("graphs for several pictures do not give what the one for a single picture does")

    def _found_by(self, sizes: Sizes) -> list[Tensor]:
        """What a shared graph gives for the same maps in every row, by a request of its own."""
        request = self._prepared(self._engine.shared_graph(self._fused, sizes), len(sizes))
        random = torch.Generator().manual_seed(0)
        maps = [torch.randn((1, *size), generator=random).repeat(n, 1, 1, 1) for n, *size in sizes]
        taken = [self._engine.as_taken(m) for m in maps]
        for i, m in enumerate(taken):
            request.set_input_tensor(i, shared(m))
        infer(request)
        return [torch.from_numpy(output.data.copy()) for output in request.output_tensors]

    def _prepared(self, graph: Any, maps: int) -> Any:
        """A request that has the weights, which follow the maps."""
        request = graph.create_infer_request()
        for i, weight in enumerate(self._weights, start=maps):
            request.set_input_tensor(i, shared(weight.numpy()))
        return request

    def _request(self, sizes: Sizes) -> Any:
        request = self._shared.get(sizes)
        if request is None:
            request = self._prepared(self._engine.shared_graph(self._fused, sizes), len(sizes))
            self._shared[sizes] = request
        return request


def _shape(fused: FusedHead) -> tuple[object, ...]:
    """What heads have in common that share graphs."""
    settings = (fused.normaliser.mode, fused.normaliser.windows, fused.bound)
    return (*settings, tuple((name, tuple(w.shape)) for name, w in weights_of(fused).items()))


def _kept_nowhere(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings for a graph that no start shall find on disk."""
    return {name: value for name, value in settings.items() if name != "CACHE_DIR"}


def _gains_by_rewriting(precision: Precision) -> bool:
    """Whether the processor does, as far as that is known."""
    if precision == "float32":
        return fewest_channels() is not None
    return computes_bfloat16(torch.device("cpu"))


def _streams(threads: int) -> int:
    """How many pictures are computed beside each other; threads that cannot be shared out would be idle."""
    return max(n for n in range(1, _STREAMS + 1) if threads % n == 0)


def _portions(n: int, largest: int = _PORTIONS[0]) -> list[tuple[int, int]]:
    """n as portions that there are graphs of, up to the largest: (start, end) of each."""
    found, start = [], 0
    for size in (size for size in _PORTIONS if size <= largest):
        while n - start >= size:
            found.append((start, start + size))
            start += size
    return found
