"""OpenVINO computes what torch computes, for every shape of flow; what it compiled serves the next start."""

import copy
import gc
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch

from flows import Compose, Coupling
from flows.fastflow.alternating import convolve
from flows.fastflow.detector import Detector
from flows.fastflow.engines import Engine, RunningBackbone, computes_bfloat16, pick_engine
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.fused import Energies, FusedHead
from flows.fastflow.head import Head
from flows.fastflow.manifest import Normalisation, Precision
from flows.fastflow.model import FlowConfig, Kernels
from flows.fastflow.models_folder import resolve
from flows.fastflow.recorded_backbone import record_of
from flows.fastflow.score import ScoreRule
from flows.fastflow.scorer import Scorer
from tests.app.full_disk import files_of_at_most
from tests.flows.fastflow.test_fused import CHANNELS, NORMALISATIONS, made, maps
from tests.flows.fastflow.untrained import weights

pytest.importorskip("openvino")

import openvino as ov

from flows.fastflow.engines import (
    openvino_backbone,
    openvino_cache,
    openvino_engine,
    openvino_head,
    openvino_winograd,
)
from flows.fastflow.engines.openvino_convolutions import users_of, value_of
from flows.fastflow.engines.openvino_engine import OpenVinoEngine
from flows.fastflow.engines.openvino_head import Sizes
from flows.fastflow.engines.openvino_maps import bits_of
from flows.fastflow.engines.openvino_parts import shared

pytestmark = pytest.mark.threads(2)

CPU = torch.device("cpu")


def openvino(cache: Path | None = None) -> Engine:
    """The engine under test."""
    return pick_engine("float32", CPU, "openvino", cache)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for tests of what is computed: compiling takes longer than all that they do."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def small_extractor() -> FeatureExtractor:
    """A backbone that is compiled in an instant; its files are larger than what a full disk takes."""
    return FeatureExtractor(weights(), (1, 2))


@pytest.fixture
def threads() -> Callable[[int], None]:
    """Sets the number of threads that engines begin with."""
    return torch.set_num_threads


def one_by_one(backbone: RunningBackbone, images: torch.Tensor) -> list[torch.Tensor]:
    """The maps of pictures that are computed one after the other."""
    return [torch.cat(maps) for maps in zip(*(backbone(image[None]) for image in images), strict=True)]


def parts_of(energies: Energies) -> tuple[torch.Tensor, ...]:
    """All that a head finds, each (N, ...)."""
    return (*energies.flow, *energies.gaussian, *energies[2:])


def expect_equal(found: Energies, expected: Energies) -> None:
    """To a few roundings."""
    for a, b in zip(parts_of(found), parts_of(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=lambda n: f"{n.mode}-{n.pooled}")
@pytest.mark.parametrize("permutation", ["halves", "index"])
@pytest.mark.parametrize("kernels", ["3-1", "3", "depthwise-5"])
def test_energies_are_those_of_the_inference_form(
    normalisation: Normalisation,
    permutation: Literal["halves", "index"],
    kernels: Kernels,
) -> None:
    flow, channels = FlowConfig(steps=2, kernels=kernels, permutation=permutation, clamp=1.5), (6, 5)
    head = made(flow, normalisation, channels)
    expect_equal(openvino().head(head)(maps(channels)), FusedHead(head)(maps(channels)))


def test_deviations_of_channels_far_from_0_are_those_of_torch() -> None:
    """Layer norm leaves such channels, and the mean square less the mean's has no digits left for them."""
    head = made(FlowConfig(steps=1), NORMALISATIONS[-1])

    def far(seed: int) -> list[torch.Tensor]:
        found = maps(n=8, seed=seed)
        for x in found:
            x[:, 1] = 1000 + 0.03 * (x[:, 1] - 50)
        return found

    head.fit_statistics(lambda: [far(seed) for seed in range(8)])
    exact = copy.deepcopy(head).double()
    expected = exact.picture(exact.normaliser([x.double() for x in far(9)])).float()
    for found in (FusedHead(head)(far(9)), openvino().head(head)(far(9))):
        torch.testing.assert_close(found.picture, expected, rtol=5e-3, atol=0)


@pytest.mark.parametrize("channels", [(6,), (5, 7), (4, 6, 8, 2)])
def test_any_number_of_scales(channels: Sequence[int]) -> None:
    head = made(FlowConfig(steps=2), NORMALISATIONS[0], channels)
    expect_equal(openvino().head(head)(maps(channels)), FusedHead(head)(maps(channels)))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 13])
def test_batches_of_any_size(n: int, compiled: Path) -> None:
    head = made(FlowConfig(steps=2), NORMALISATIONS[0])
    expect_equal(openvino(compiled).head(head)(maps(n=n)), FusedHead(head)(maps(n=n)))


def test_means_of_positions_are_those_of_each_head() -> None:
    of_maps = [(x.shape[2], x.shape[3]) for x in maps()]
    engine, heads = (
        openvino(),
        [made(FlowConfig(steps=1), NORMALISATIONS[0], sizes=of_maps) for _ in range(2)],
    )
    heads[1].gaussian.get_buffer("mean_0").mul_(2)
    running = [engine.head(head) for head in heads]
    running[1].specialise(sizes())
    for n in (1, 8):
        for head, computed in zip(heads, running, strict=True):
            expect_equal(computed(maps(n=n)), FusedHead(head)(maps(n=n)))


def test_heads_of_one_shape_share_graphs_and_keep_their_weights_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = []

    def counting(head: FusedHead, sizes: Sizes, **how: Any) -> object:
        built.append(head)
        return openvino_head.build(head, sizes, **how)

    monkeypatch.setattr(openvino_engine, "build", counting)
    one, other = made(FlowConfig(steps=2), NORMALISATIONS[0]), made(FlowConfig(steps=2), NORMALISATIONS[0])
    for parameter in other.flow.parameters():
        parameter.mul_(0.5)
    engine = openvino()
    first, second = engine.head(one), engine.head(other)
    for _ in range(2):
        expect_equal(first(maps(n=1)), FusedHead(one)(maps(n=1)))
        expect_equal(second(maps(n=1)), FusedHead(other)(maps(n=1)))
    assert len(built) == 1
    clamped = made(FlowConfig(steps=2, clamp=0.1), NORMALISATIONS[0])
    expect_equal(engine.head(clamped)(maps(n=1)), FusedHead(clamped)(maps(n=1)))
    assert len(built) == 2


def test_batches_do_not_wait_for_a_backbone_that_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, head = OpenVinoEngine("float32"), made(FlowConfig(steps=1), NORMALISATIONS[0])
    begun, go_on, compiles = threading.Event(), threading.Event(), engine._compile_backbone

    def slowly(parts: Sequence[Any]) -> Any:
        begun.set()
        assert go_on.wait(60)
        return compiles(parts)

    monkeypatch.setattr(engine, "_compile_backbone", slowly)
    with ThreadPoolExecutor(2) as others:
        backbone = others.submit(engine.backbone, FeatureExtractor(weights(), (1, 2)), (64, 64))
        try:
            assert begun.wait(60)
            for n in (1, 3):  # nothing of either is compiled
                found = others.submit(engine.head(head), maps(n=n)).result(timeout=60)
                expect_equal(found, FusedHead(head)(maps(n=n)))
                pixels = engine.pixels(ScoreRule(), (32, 32))(found)  # an iterator that has not begun
                assert len(others.submit(list, pixels).result(timeout=60)) == n
        finally:
            go_on.set()
        backbone.result(timeout=60)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("clamp", "bfloat16"), [(2.0, False), (20.0, False), (20.0, True)])
def test_log_scales_are_taken_from_values_around_0_where_bfloat16_is_fine(
    own: bool, clamp: float, bfloat16: bool
) -> None:
    head = FusedHead(made(FlowConfig(steps=2, clamp=clamp), NORMALISATIONS[0]))
    graph = openvino_head.build(head, sizes_of(maps()), own=own, bfloat16=bfloat16)
    functions = [node for node in graph.get_ops() if node.get_type_name() == "Sigmoid"]
    assert len(functions) == 2 * len(CHANNELS)
    for function in functions:
        [user] = users_of(function)
        assert user.get_type_name() == "Subtract"
        assert value_of(user.input_value(1)) == 0.5


@pytest.mark.parametrize("own", [True, False])
def test_in_bfloat16_scales_of_the_usual_bound_take_no_function(own: bool) -> None:
    head = FusedHead(made(FlowConfig(steps=2), NORMALISATIONS[0]))
    graph = openvino_head.build(head, sizes_of(maps()), own=own, bfloat16=True)
    found = Counter(node.get_type_name() for node in graph.get_ops())
    assert (found["Sigmoid"], found["Clamp"]) == (0, 2 * len(CHANNELS))


def with_scales(head: Head, factor: float) -> Head:
    """The head, with raw log-scales that are so many times as large."""
    for flow in head.flow.scales:
        for coupling in (one for one in cast(Compose, flow).transforms if isinstance(one, Coupling)):
            last = cast(Any, coupling.conditioner).last
            for parameter in (last.weight, last.bias):
                parameter[: len(parameter) // 2] *= factor
    return head


def sizes_of(given: Sequence[torch.Tensor]) -> Sizes:
    return tuple(tuple(m.shape) for m in given)


def rounded(given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Maps as the graph for bfloat16 sees them."""
    return [m.bfloat16().float() for m in given]


def by_graph(head: Head, given: Sequence[torch.Tensor], precision: str, *, own: bool) -> Energies:
    """What the graph for bfloat16 gives when it is computed in a precision."""
    fused = FusedHead(head)
    model = openvino_head.build(fused, sizes_of(given), own=own, bfloat16=True)
    settings = {"INFERENCE_PRECISION_HINT": precision}
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    weights = [] if own else [w.contiguous().numpy() for w in openvino_head.weights_of(fused).values()]
    arrays = [*(bits_of(m) for m in given), *weights]
    for i, x in enumerate(arrays):
        request.set_input_tensor(i, shared(x))
    request.infer()
    found = [torch.from_numpy(output.data.copy()) for output in request.output_tensors]
    n = len(given)
    return Energies(found[:n], found[n : 2 * n], *found[2 * n :])


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("permutation", ["halves", "index"])
@pytest.mark.parametrize("kernels", ["3-1", "depthwise-5"])
@pytest.mark.parametrize(("clamp", "factor", "near"), [(2.0, 1, 1e-3), (2.0, 50, 3e-2), (20.0, 1, 1e-5)])
def test_the_graph_for_bfloat16_computes_the_same(
    own: bool,
    permutation: Literal["halves", "index"],
    kernels: Kernels,
    clamp: float,
    factor: float,
    near: float,
) -> None:
    """In float32 there is left what its scales are off, of which there is nothing with the largest bound."""
    flow = FlowConfig(steps=3, kernels=kernels, permutation=permutation, clamp=clamp)
    of_positions = [(m.shape[2], m.shape[3]) for m in maps((6, 5))]
    head = with_scales(made(flow, NORMALISATIONS[0], (6, 5), sizes=of_positions), factor)
    given = maps((6, 5), n=2)
    found, expected = by_graph(head, given, "f32", own=own), FusedHead(head)(rounded(given))
    for a, b in zip(found.flow, expected.flow, strict=True):
        assert float((a / b - 1).abs().median()) < near
    for a, b in zip(parts_of(found)[2:], parts_of(expected)[2:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=lambda n: f"{n.mode}-{n.pooled}")
def test_the_graph_for_bfloat16_normalises_and_tells_the_same(
    normalisation: Normalisation, own: bool
) -> None:
    """However maps are normalised and pooled, which is done in another order there."""
    head, given = made(FlowConfig(steps=1), normalisation, (6, 5, 4)), rounded(maps((6, 5, 4), n=3))
    expected = FusedHead(head)(given)
    found = by_graph(head, given, "f32", own=own)
    for a, b in zip(parts_of(found)[3:], parts_of(expected)[3:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(found.flow, expected.flow, strict=True):
        assert float((a / b - 1).abs().median()) < 1e-3


@pytest.mark.parametrize("level", [-20.0, 20.0])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("clamp", [2.0, 20.0])
def test_a_level_of_log_scales_is_a_factor_however_far_from_1(level: float, own: bool, clamp: float) -> None:
    head, given = made(FlowConfig(steps=2, clamp=clamp), NORMALISATIONS[0], (6, 5)), maps((6, 5), n=2)
    given = rounded(given)
    for flow in head.flow.scales:
        cast(Any, flow).transforms[-1].log_scale += level
    found, expected = by_graph(head, given, "f32", own=own), FusedHead(head)(given)
    for a, b in zip(found.flow, expected.flow, strict=True):
        assert float((a / b - 1).abs().median()) < 1e-3
    running = openvino().head(head)
    for a, b in zip(running(given).flow, expected.flow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=0)


def raw_log_scales(head: Head, given: Sequence[torch.Tensor]) -> torch.Tensor:
    """u of the first steps, of which tanh is taken."""
    fused = FusedHead(head)
    found = []
    for scale, x in zip(fused.scales, fused.normaliser(given), strict=True):
        step = cast(Any, scale).steps[0]
        seen = x.index_select(1, cast(Any, scale).first)
        raw = torch.relu(convolve(seen, step.hidden_weight, step.hidden_bias))
        raw = torch.relu(convolve(raw, step.middle_weight, step.middle_bias))
        found.append(convolve(raw, step.weight, step.bias)[:, : step.changed].flatten() / 2)
    return torch.cat(found)


@pytest.mark.skipif(not computes_bfloat16(CPU), reason="no instructions for bfloat16")
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("factor", "beyond"), [(1, (0.0, 0.0)), (50, (0.01, 0.5))])
def test_in_bfloat16_energies_are_near_those_in_float32(
    own: bool, factor: float, beyond: tuple[float, float]
) -> None:
    """A root of a scale that was rounded on the way would be off by 3 % and more: it is one pass."""
    channels = (32, 24)
    head = with_scales(made(FlowConfig(steps=2), NORMALISATIONS[0], channels), factor)
    given = maps(channels, n=4)
    clipped = float((raw_log_scales(head, given).abs() > 2.6).double().mean())
    assert beyond[0] <= clipped <= beyond[1]
    found, expected = by_graph(head, given, "bf16", own=own), FusedHead(head)(given)
    for a, b in zip((*found.flow, *found.gaussian), (*expected.flow, *expected.gaussian), strict=True):
        assert float((a / b - 1).abs().mean()) < 1.5e-2


@pytest.mark.skipif(not computes_bfloat16(CPU), reason="no instructions for bfloat16")
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("normalisation", NORMALISATIONS[:2], ids=lambda n: n.pooled)
def test_in_bfloat16_channels_far_from_0_keep_their_deviations(
    normalisation: Normalisation, own: bool
) -> None:
    """As of a picture in other light. A mean of rounded squares would leave a tenth of it open."""
    head = made(FlowConfig(steps=1), normalisation, (32, 24))
    far = [2 + 0.1 * m / m.std() for m in head.normaliser(maps((32, 24), n=4))]
    raw = []
    for i, x in enumerate(far):
        mean, std = (head.normaliser.get_buffer(f"{of}_{i}").view(1, -1, 1, 1) for of in ("mean", "std"))
        raw.append(x * std + mean)
    given = rounded(raw)
    found, expected = by_graph(head, given, "bf16", own=own), FusedHead(head)(given)
    deviations = [(one.square - one.mean.square()) for one in (found, expected)]
    torch.testing.assert_close(found.mean, expected.mean, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(deviations[0], deviations[1], rtol=3e-2, atol=1e-3)
    torch.testing.assert_close(found.picture, expected.picture, rtol=3e-2, atol=0)


@pytest.mark.skipif(not computes_bfloat16(CPU), reason="no instructions for bfloat16")
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("clamp", [2.0, 20.0])
def test_in_bfloat16_maps_are_not_turned_from_one_format_to_the_other_at_every_step(
    own: bool, clamp: float
) -> None:
    """What goes in is turned, however many steps there are."""

    def turned(steps: int, *, bfloat16: bool) -> int:
        head = made(FlowConfig(steps=steps, clamp=clamp), NORMALISATIONS[0], (32,))
        engine = OpenVinoEngine("openvino-bfloat16")
        model = openvino_head.build(FusedHead(head), ((1, 32, 8, 7),), own=own, bfloat16=bfloat16)
        compiled = engine._compile(model, engine._settings)
        found = 0
        for node in compiled.get_runtime_model().get_ops():
            if node.get_rt_info()["layerType"].astype(str) in ("Reorder", "Convert"):
                shape = tuple(node.get_output_shape(0))
                found += shape[2:] == (8, 7) and shape[1] > 1
        return found

    assert 0 < turned(2, bfloat16=True) == turned(6, bfloat16=True)
    assert turned(2, bfloat16=False) < turned(6, bfloat16=False)


def sizes(channels: Sequence[int] = CHANNELS) -> list[tuple[int, ...]]:
    """Of one picture's maps."""
    return [tuple(m.shape[1:]) for m in maps(channels, n=1)]


class TestSpecialise:
    def one_step(self) -> Head:
        """Of one scale: compiling takes as many seconds as there are steps."""
        return made(FlowConfig(steps=1), NORMALISATIONS[0], (6,))

    @pytest.fixture
    def alone(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """From the call on a shared graph is a failure."""

        def fail(*_: object) -> object:
            pytest.fail("a shared graph was used")

        return lambda: monkeypatch.setattr(openvino_engine.OpenVinoEngine, "shared_graph", fail)

    @pytest.mark.parametrize("permutation", ["halves", "index"])
    @pytest.mark.parametrize("precision", ["float32", "openvino-bfloat16"])
    def test_energies_are_those_of_the_shared_graphs(
        self, permutation: Literal["halves", "index"], precision: Precision, alone: Callable[[], None]
    ) -> None:
        channels = (6, 5)
        head = made(FlowConfig(steps=2, permutation=permutation), NORMALISATIONS[0], channels)
        engine = pick_engine(precision, CPU, "openvino", None)
        running, sharing = engine.head(head), engine.head(head)
        before = {n: sharing(maps(channels, n=n)) for n in (1, 8, 9)}
        running.specialise(sizes(channels))
        alone()
        for n, expected in before.items():
            found = running(maps(channels, n=n))
            if precision == "float32":
                expect_equal(found, expected)
            for a, b in zip(
                (*found.flow, *found.gaussian), (*expected.flow, *expected.gaussian), strict=True
            ):
                torch.testing.assert_close(a, b, rtol=2e-2, atol=1e-2)

    @pytest.mark.parametrize("given", [1, 2, 3, 5])
    def test_pictures_give_what_they_give_alone(
        self, alone: Callable[[], None], threads: Callable[[int], None], given: int
    ) -> None:
        """In batches of any size, by how many threads ever."""
        threads(given)
        head = self.one_step()
        running = openvino().head(head)
        running.specialise(sizes((6,)))
        alone()
        batch = maps((6,), n=19)
        one_by_one = [running([m[i : i + 1] for m in batch]) for i in range(19)]
        for n in (19, 2, 3, 8):
            found = running([m[:n] for m in batch])
            expect_equal(found, FusedHead(head)([m[:n] for m in batch]))
            for i, one in enumerate(one_by_one[:n]):
                for rows, same in zip(parts_of(found), parts_of(one), strict=True):
                    torch.testing.assert_close(rows[i : i + 1], same, rtol=1e-5, atol=1e-6)
                    # By one graph all the same, and by two threads too.
                    assert given == 3 or torch.equal(rows[i : i + 1], same)

    @pytest.mark.parametrize("given", [1, 2, 3, 5])
    @pytest.mark.parametrize("channels", [(5, 7), (4, 6, 8, 2)])
    def test_scales_that_are_computed_apart_come_together(
        self,
        alone: Callable[[], None],
        threads: Callable[[int], None],
        monkeypatch: pytest.MonkeyPatch,
        channels: Sequence[int],
        given: int,
    ) -> None:
        """Of pictures alone and beside others; of the finest of four scales there is no picture's energy."""
        threads(given)
        head = made(FlowConfig(steps=1), NORMALISATIONS[0], channels)
        engine = OpenVinoEngine("float32")
        compile_one, asked = engine._compile, []

        def recording(model: Any, settings: Any) -> Any:
            asked.append(settings["INFERENCE_NUM_THREADS"])
            return compile_one(model, settings)

        monkeypatch.setattr(engine, "_compile", recording)
        running = engine.head(head)
        running.specialise(sizes(channels))
        assert running._own is not None
        _, own = running._own
        apart = [[*group.scales] for group in own._alone._groups]
        every = list(range(len(channels)))
        assert apart == ([every] if given == 1 else [every[:1], every[1:]])
        alone()
        shared_first = len(openvino_engine._PORTIONS)
        shares = asked[shared_first : shared_first + len(apart)]
        assert shares == {1: [1], 2: [1, 1], 3: [2, 1], 5: [3, 2]}[given]
        for n in (1, 2, 3, 7):
            given_maps = maps(channels, n=n)
            expect_equal(running(given_maps), FusedHead(head)(given_maps))

    def test_of_graphs_beside_each_other_one_that_fails_waits_for_the_other(
        self, threads: Callable[[int], None]
    ) -> None:
        threads(2)
        head = made(FlowConfig(steps=1), NORMALISATIONS[0], (6, 5))
        running: Any = openvino().head(head)
        running.specialise(sizes((6, 5)))
        _, own = running._own
        [[first], [second]] = own._alone._requests
        waited: list[object] = []

        class Waiting:
            def wait(self) -> None:
                first.wait()
                waited.append(self)

            def __getattr__(self, name: str) -> Any:
                return getattr(first, name)

        class Failing:
            def start_async(self) -> None:
                raise RuntimeError("no memory")

            def __getattr__(self, name: str) -> Any:
                return getattr(second, name)

        own._alone._requests = [[Waiting()], [Failing()]]
        with pytest.raises(RuntimeError, match="no memory"):
            running(maps((6, 5), n=1))
        assert len(waited) == 1
        expect_equal(running(maps((6, 5), n=1)), FusedHead(head)(maps((6, 5), n=1)))

    @pytest.mark.parametrize("fails", ["set_input_tensor", "wait"])
    @pytest.mark.parametrize("n", [1, 8])
    def test_one_that_fails_waits_for_those_beside_it(
        self, threads: Callable[[int], None], fails: str, n: int
    ) -> None:
        """They write to memory that goes with the batch. The next batch is computed, by others."""
        threads(2)
        head = self.one_step()
        running: Any = openvino().head(head)
        running.specialise(sizes((6,)))
        started: list[object] = []
        ended: list[object] = []

        class Failing:
            def __init__(self, request: Any) -> None:
                self._request = request

            def _fail(self, at: str) -> None:
                # As OpenVINO does, at every wait after an inference that failed.
                if at == fails and (n == 1 or len(started) >= 3):
                    raise RuntimeError("no memory")

            def set_input_tensor(self, port: int, tensor: object) -> None:
                self._fail("set_input_tensor")
                self._request.set_input_tensor(port, tensor)

            def start_async(self) -> None:
                started.append(self)
                self._request.start_async()

            def wait(self) -> None:
                self._request.wait()
                ended.append(self)
                self._fail("wait")

            def __getattr__(self, name: str) -> Any:
                return getattr(self._request, name)

        _, own = running._own
        turns = own._alone if n == 1 else own._together
        [requests] = turns._requests
        turns._requests = [[Failing(request) for request in requests]]
        with pytest.raises(RuntimeError, match="no memory"):
            running(maps((6,), n=n))
        assert set(started) <= set(ended)
        expect_equal(running(maps((6,), n=n)), FusedHead(head)(maps((6,), n=n)))

    def test_another_head_of_the_shape_keeps_its_own_weights(self, alone: Callable[[], None]) -> None:
        one, other = (self.one_step() for _ in range(2))
        for parameter in other.flow.parameters():
            parameter.mul_(0.5)
        engine = openvino()
        running = [engine.head(one), engine.head(other)]
        for head in running:
            head.specialise(sizes((6,)))
        alone()
        for head, expected in zip(running, (one, other), strict=True):
            expect_equal(head(maps((6,), n=1)), FusedHead(expected)(maps((6,), n=1)))

    def test_room_for_it_is_bounded_and_comes_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = openvino()
        heads = [self.one_step() for _ in range(3)]
        running: list[Any] = [engine.head(head) for head in heads]
        running[0].specialise(sizes((6,)))
        monkeypatch.setattr(openvino_engine, "_OWN_BYTES", running[0].own_bytes)
        running[1].specialise(sizes((6,)))
        assert (running[0].own_bytes > 0, running[1].own_bytes) == (True, 0)
        expect_equal(running[1](maps((6,), n=1)), FusedHead(heads[1])(maps((6,), n=1)))
        del running[0]
        gc.collect()
        running[1].specialise(sizes((6,)))
        assert running[1].own_bytes > 0

    def test_where_it_fails_the_shared_graphs_go_on(
        self, monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
    ) -> None:
        head = self.one_step()
        running: Any = openvino().head(head)
        compile_one = openvino_engine.OpenVinoEngine._compile

        def all_but_own(self: Any, model: Any, settings: Any) -> Any:
            if "NUM_STREAMS" in settings:
                raise RuntimeError("no memory")
            return compile_one(self, model, settings)

        threads(2)
        monkeypatch.setattr(openvino_engine.OpenVinoEngine, "_compile", all_but_own)
        with pytest.raises(RuntimeError, match="no memory"):
            running.specialise(sizes((6,)))
        assert running.own_bytes == 0
        expect_equal(running(maps((6,), n=8)), FusedHead(head)(maps((6,), n=8)))

    @pytest.mark.parametrize(("n", "for_good"), [(2, False), (4, False), (8, False), (8, True)])
    def test_graphs_for_several_pictures_that_are_damaged_are_made_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, for_good: bool
    ) -> None:
        """Golden pictures are scored one by one, and a start waits for the largest of them alone."""
        head = self.one_step()
        engine = openvino(tmp_path)
        running: Any = engine.head(head)
        cleared: list[Path] = []
        found_by, clear = openvino_engine._OpenVinoHead._found_by, openvino_cache.clear

        def damaged(self: Any, of_maps: Any) -> Any:
            found = found_by(self, of_maps)
            if of_maps[0][0] == n and (for_good or not cleared):
                found[0][-1] *= 1.2
            return found

        def clearing(cache: Path) -> None:
            cleared.append(cache)
            clear(cache)

        monkeypatch.setattr(openvino_engine._OpenVinoHead, "_found_by", damaged)
        monkeypatch.setattr(openvino_cache, "clear", clearing)
        if for_good:
            with pytest.raises(EngineError, match="do not give what the one for a single picture does"):
                running.specialise(sizes((6,)))
        else:
            running.specialise(sizes((6,)))
            assert running.own_bytes > 0
        assert len(cleared) == 1
        expect_equal(running(maps((6,), n=n)), FusedHead(head)(maps((6,), n=n)))

    def test_they_are_compared_once_for_all_heads_of_a_shape(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[int] = []
        expect_sound = openvino_engine._OpenVinoHead._expect_sound

        def counting(self: Any, batches: Any) -> None:
            compared.append(len(batches))
            expect_sound(self, batches)

        monkeypatch.setattr(openvino_engine._OpenVinoHead, "_expect_sound", counting)
        engine = openvino()
        for _ in range(2):
            engine.head(self.one_step()).specialise(sizes((6,)))
        assert compared == [len(openvino_engine._PORTIONS)]

    def test_nothing_of_its_own_is_kept_on_disk(self, tmp_path: Path) -> None:
        engine = openvino(tmp_path)
        [place] = tmp_path.iterdir()
        running: Any = [engine.head(self.one_step()) for _ in range(2)]
        running[0].specialise(sizes((6,)))
        kept = {path.name for path in place.iterdir()}
        assert len(kept) == len(openvino_engine._PORTIONS)  # which heads share
        running[1].specialise(sizes((6,)))
        assert running[1].own_bytes > 0
        assert {path.name for path in place.iterdir()} == kept

    def test_then_every_size_of_batch_is_ready(
        self,
        tiny_bundle_store: Path,
        compiled: Path,
        monkeypatch: pytest.MonkeyPatch,
        threads: Callable[[int], None],
    ) -> None:
        """A start waits for the first and the last of them alone."""
        threads(2)
        found = resolve(tiny_bundle_store, "tiny")
        scorer = Detector.load(found, device="cpu", engine=openvino(compiled)).scorer
        scorer.warm_up()
        compiling: list[int] = []
        compile_one = openvino_engine.OpenVinoEngine._compile

        def recording(self: Any, model: Any, settings: Any) -> Any:
            compiling.append(model.inputs[0].shape[0])
            return compile_one(self, model, settings)

        monkeypatch.setattr(openvino_engine.OpenVinoEngine, "_compile", recording)
        image = np.zeros((*scorer.input_size, 3), np.uint8)
        scorer.score([image] * 9)  # 8 and 1
        assert not compiling
        scorer.specialise()
        assert sorted(compiling) == [1, 1, 1, 2, 4]  # of its own those for one, by two for one alone
        scorer.score([image] * 15)
        assert len(compiling) == 5


def test_models_of_a_backbone_share_its_buffers(tiny_extractor: FeatureExtractor, compiled: Path) -> None:
    """A request has room for what a picture gives: some for each category would be gigabytes."""
    engine = openvino(compiled)
    first, second = (engine.backbone(tiny_extractor, (64, 64)) for _ in range(2))
    assert first is second
    pictures = [torch.full((n, 64, 64, 3), 9 * n, dtype=torch.uint8) for n in (1, 16, 2)]
    alone = [first(p) for p in pictures]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(10):
            at_once = list(pool.map(second, pictures))
            for found, expected in zip(at_once, alone, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert isinstance(first, openvino_backbone.OpenVinoBackbone)
    assert 1 <= len(first._alone.idle) <= 3
    assert 16 <= len(first._together.idle) <= 16 + 2


@pytest.mark.parametrize("n", [1, 2, 3, 8, 27])
@pytest.mark.parametrize("given", [1, 2, 3, 9])
def test_backbones_take_batches_of_any_size(
    tiny_extractor: FeatureExtractor, compiled: Path, threads: Callable[[int], None], n: int, given: int
) -> None:
    """Each picture's maps are those that it has alone, by how many threads ever."""
    threads(given)
    backbone = openvino(compiled).backbone(tiny_extractor, (64, 64))
    assert backbone.batches[-1] == 1 <= backbone.batches[0] <= given
    images = torch.randint(0, 256, (n, 64, 64, 3), dtype=torch.uint8)
    alone = one_by_one(backbone, images)
    for found, expected, by_torch in zip(backbone(images), alone, tiny_extractor(images), strict=True):
        torch.testing.assert_close(found, by_torch, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert given > 2 or torch.equal(found, expected)


@pytest.mark.parametrize(
    ("given", "streams"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (8, 4), (10, 2)]
)
def test_threads_are_shared_out_without_rest(given: int, streams: int) -> None:
    assert openvino_engine._streams(given) == streams


def test_a_second_part_goes_on_with_what_the_first_one_gave() -> None:
    """Beside each other as alone, with a map of the first part among the results."""
    extractor = FeatureExtractor(weights(name="test_efficientnet"), (0, 3), (64, 96))
    backbone = pick_engine("openvino-bfloat16", CPU).backbone(extractor, (64, 96))
    assert isinstance(backbone, openvino_backbone.OpenVinoBackbone)
    assert len(backbone._together._graphs) == 2
    images = torch.randint(0, 256, (5, 64, 96, 3), dtype=torch.uint8)
    found = backbone(images)
    alone = one_by_one(backbone, images)
    for whole, expected, exact in zip(found, alone, extractor(images), strict=True):
        assert whole.shape == exact.shape
        torch.testing.assert_close(whole, expected, rtol=1e-2, atol=1e-2)
        assert float((whole - exact).pow(2).mean().sqrt()) < 0.1 * float(exact.std())


def test_a_large_backbone_is_laid_out_once(
    tiny_extractor: FeatureExtractor, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = openvino(compiled).backbone(tiny_extractor, (64, 64))
    monkeypatch.setattr(openvino_engine, "_STREAMED_BYTES", small.nbytes // 2 - 1)
    large = openvino(compiled).backbone(tiny_extractor, (64, 64))
    assert (small.batches, large.batches) == ((2, 1), (1,))
    assert large.nbytes == small.nbytes // 2
    images = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    assert all(torch.equal(a, b) for a, b in zip(large(images), small(images), strict=True))


def test_requests_that_failed_are_not_taken_again(tiny_extractor: FeatureExtractor, compiled: Path) -> None:
    backbone = openvino(compiled).backbone(tiny_extractor, (64, 64))
    assert isinstance(backbone, openvino_backbone.OpenVinoBackbone)
    with pytest.raises(RuntimeError):
        backbone(torch.zeros((4, 32, 64, 3), dtype=torch.uint8))
    assert not backbone._alone.idle
    assert not backbone._together.idle
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(backbone(images)[0], tiny_extractor(images)[0], rtol=1e-3, atol=1e-4)


def test_a_batch_that_fails_ends_when_nothing_of_it_runs(small_extractor: FeatureExtractor) -> None:
    backbone = openvino().backbone(small_extractor, (512, 512))
    assert isinstance(backbone, openvino_backbone.OpenVinoBackbone)
    images = np.zeros((4, 1, 512, 512, 3), np.uint8)
    taken: list[list[Any]] = []

    def begin_and_fail() -> None:
        with backbone._together.of(4) as requests:
            taken.extend(requests)
            for [request], image in zip(requests, images, strict=True):
                request.set_input_tensor(shared(image))
                request.start_async()
            raise ValueError("of a picture")

    with pytest.raises(ValueError, match="of a picture"):
        begin_and_fail()
    assert all(request.wait_for(0) for [request] in taken)
    assert not backbone._together.idle


def test_after_warming_up_there_are_requests(tiny_bundle_store: Path, compiled: Path) -> None:
    engine = openvino(compiled)
    scorer = Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu", engine=engine).scorer
    scorer.warm_up()
    backbone = scorer._backbone
    assert isinstance(backbone, openvino_backbone.OpenVinoBackbone)
    assert (len(backbone._alone.idle), len(backbone._together.idle)) == (1, 2)


def test_what_was_returned_is_not_overwritten_by_the_next_batch() -> None:
    head = made(FlowConfig(steps=2), NORMALISATIONS[0])
    running = openvino().head(head)
    first = running(maps(n=1, seed=1))
    kept = [t.clone() for t in (*first.flow, first.picture)]
    running(maps(n=1, seed=2))
    assert all(torch.equal(a, b) for a, b in zip((*first.flow, first.picture), kept, strict=True))


def test_a_head_that_an_engine_has_taken_is_saved_whole() -> None:
    head = made(FlowConfig(steps=2), NORMALISATIONS[0])
    before = head.state_dict().keys()
    openvino().head(head)
    assert head.state_dict().keys() == before


def test_memory_counted_beside_the_heads_own_is_that_of_folded_weights() -> None:
    head = made(FlowConfig(steps=2, kernels="3-1"), NORMALISATIONS[0])
    assert 0 < openvino().head(head).nbytes < sum(p.nbytes for p in head.parameters()) * 2
    # Weights laid out for torch cannot be shared.
    plain = openvino().head(head).nbytes
    head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert openvino().head(head).nbytes > plain


def test_on_a_full_disk_a_backbone_is_computed_and_not_kept(
    small_extractor: FeatureExtractor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    engine = openvino(tmp_path)
    with files_of_at_most(10_000), caplog.at_level(logging.WARNING):
        found = engine.backbone(small_extractor, (64, 64))(images)
    for a, b in zip(found, small_extractor(images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert "cannot be kept" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".xml", ".bin", ".part")]


@pytest.mark.parametrize("size", [(96, 64), (72, 100)])
def test_backbones_give_the_same_maps(tiny_extractor: FeatureExtractor, size: tuple[int, int]) -> None:
    """At sizes that divide and sizes that do not: padding depends on them. 64 by 64 is what others take."""
    images = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8)
    found = openvino().backbone(tiny_extractor, size)(images)
    for a, b in zip(found, tiny_extractor(images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    """A backbone with four 3x3 convolutions that take less time by tiles."""
    return FeatureExtractor(weights(name="resnet10t"), (1, 2, 3), TestTiles.SIZE)


class TestTiles:
    """Of backbones with 3x3 convolutions that take less time so."""

    SIZE = (136, 192)

    @pytest.fixture
    def rewritten(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """How many convolutions of each graph were, on a processor with vectors of 256 bits."""
        found: list[int] = []
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")

        def counting(model: Any) -> int:
            found.append(openvino_winograd.rewrite(model))
            return found[-1]

        monkeypatch.setattr(openvino_engine, "rewrite", counting)
        return found

    @pytest.mark.parametrize("rewrites", [True, False])
    def test_maps_are_those_of_torch(
        self,
        extractor: FeatureExtractor,
        threads: Callable[[int], None],
        rewritten: list[int],
        rewrites: bool,
    ) -> None:
        """Of a picture alone and beside others; where the processor gains nothing, by convolutions."""
        threads(2)
        backbone = OpenVinoEngine("float32", rewrites=rewrites).backbone(extractor, self.SIZE)
        assert rewritten == ([4] if rewrites else [])
        images = torch.randint(0, 256, (5, *self.SIZE, 3), dtype=torch.uint8)
        alone = one_by_one(backbone, images)
        for found, one, expected in zip(backbone(images), alone, extractor(images), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
            torch.testing.assert_close(found, one, rtol=1e-5, atol=1e-6 * float(one.abs().max()))

    def test_a_graph_that_rounds_has_none(self, extractor: FeatureExtractor, rewritten: list[int]) -> None:
        OpenVinoEngine("openvino-bfloat16", rewrites=True).backbone(extractor, self.SIZE)
        assert not rewritten

    def test_what_was_compiled_is_found_again(self, extractor: FeatureExtractor, tmp_path: Path) -> None:
        kept = []
        for _ in range(3):
            OpenVinoEngine("float32", tmp_path, rewrites=True).backbone(extractor, self.SIZE)
            kept.append({path.name for path in tmp_path.rglob("*.*")})
        assert kept[0]
        assert kept == 3 * [kept[0]]

    @pytest.mark.usefixtures("rewritten")
    def test_both_forms_are_kept_beside_each_other(self, extractor: FeatureExtractor, tmp_path: Path) -> None:
        """One folder may serve two machines, and what is converted is the same for both."""
        images = torch.randint(0, 256, (1, *self.SIZE, 3), dtype=torch.uint8)
        found = []
        for rewrites in (True, False, True):
            engine = OpenVinoEngine("float32", tmp_path, rewrites=rewrites)
            found.append(engine.backbone(extractor, self.SIZE)(images))
        assert len(list(tmp_path.rglob("*.xml"))) == 1
        for first, between, again in zip(*found, strict=True):
            assert torch.equal(first, again)
            assert not torch.equal(first, between)
            torch.testing.assert_close(first, between, rtol=0, atol=2e-5 * float(first.abs().max()))


def test_only_processors_with_wide_vectors_are_given_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    fewest = {"AVX2": 56, "AVX512": 112, "DEFAULT": None, "SVE256": None}
    for capability, expected in fewest.items():
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda known=capability: known)
        assert openvino_winograd.fewest_channels() == expected
        assert OpenVinoEngine("float32")._rewrites is (expected is not None)
        assert OpenVinoEngine("openvino-bfloat16")._rewrites is computes_bfloat16(CPU)


def test_a_detector_scores_the_same_and_says_by_whom(
    tiny_bundle_store: Path, tiny_images: dict[str, list[bytes]], compiled: Path
) -> None:
    from flows.fastflow.images import decode

    folder = resolve(tiny_bundle_store, "tiny")
    reference = Detector.load(folder, device="cpu")
    detector = Detector.load(folder, device="cpu", engine=openvino(compiled))
    assert detector.engine == "openvino-cpu-float32"
    images = [decode(data) for data in (*tiny_images["good"][:3], *tiny_images["defect"][:2])]
    for found, expected in zip(detector.predict(images), reference.predict(images), strict=True):
        assert found.score == pytest.approx(expected.score, rel=1e-4)
        assert found.decision == expected.decision
        np.testing.assert_allclose(found.score_map, expected.score_map, rtol=1e-3, atol=1e-4)


def test_tiles_and_regions_work_as_with_torch(tiny_bundle_store: Path, compiled: Path) -> None:
    from flows.fastflow.geometry import Geometry

    made = Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu").scorer
    image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), dtype=np.uint8)
    for geometry in (Geometry(fit="pad"), Geometry(fit="tile")):
        by_torch, by_openvino = (
            Scorer(made.extractor, made.head, made.input_size, made.rule, geometry, engine)
            for engine in (None, openvino(compiled))
        )
        prepared = [by_torch.prepare(image)]
        region = np.zeros(prepared[0].layout.size, np.bool_)
        region[8:40, 8:40] = True
        for regions in (None, [region]):
            [expected] = by_torch.score_prepared(prepared, regions)
            [found] = by_openvino.score_prepared(prepared, regions)
            assert found.score == pytest.approx(expected.score, rel=1e-4)
            np.testing.assert_allclose(found.score_map, expected.score_map, rtol=1e-3, atol=1e-4)


class TestCache:
    def test_a_converted_backbone_is_not_converted_again(
        self, tmp_path: Path, small_extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
        expected = openvino(tmp_path).backbone(small_extractor, (64, 64))(images)
        monkeypatch.setattr(openvino_backbone, "convert", lambda *_: pytest.fail("converted again"))
        found = openvino(tmp_path).backbone(small_extractor, (64, 64))(images)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    def test_a_compiled_one_that_cannot_be_kept_is_told(
        self, tmp_path: Path, small_extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture
    ) -> None:
        """OpenVINO goes on without a word where there is room for what was converted, and for no more."""
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                openvino(tmp_path).backbone(small_extractor, (64, 64))
            assert not caplog.records
            for path in tmp_path.rglob("*.blob"):
                assert path.stat().st_size > 10_000
                path.unlink()
            images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
            with files_of_at_most(10_000):
                found = openvino(tmp_path).backbone(small_extractor, (64, 64))(images)
        torch.testing.assert_close(found[0], small_extractor(images)[0], rtol=1e-3, atol=1e-4)
        [record] = caplog.records
        assert "a compiled backbone could not be kept in" in record.getMessage()
        assert "each start compiles it" in record.getMessage()

    @pytest.mark.parametrize("suffix", [".xml", ".bin"])
    def test_a_damaged_one_is_made_anew(
        self, tmp_path: Path, small_extractor: FeatureExtractor, suffix: str
    ) -> None:
        images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
        expected = openvino(tmp_path).backbone(small_extractor, (64, 64))(images)
        for path in [*tmp_path.rglob(f"*{suffix}"), *tmp_path.rglob("*.blob")]:
            path.chmod(0o600)
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        found = openvino(tmp_path).backbone(small_extractor, (64, 64))(images)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    def test_other_weights_stages_and_sizes_have_other_names(self, tmp_path: Path) -> None:
        images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
        of_each = ((0, (1, 2)), (1, (1, 2)), (0, (2, 3)))
        extractors = [FeatureExtractor(weights(seed), stages) for seed, stages in of_each]
        for extractor in extractors:
            found = openvino(tmp_path).backbone(extractor, (64, 64))(images)
            for a, b in zip(found, extractor(images), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        assert len(list(tmp_path.rglob("*.xml"))) == 3
        engine = openvino(tmp_path / "of sizes")
        for size in ((64, 64), (64, 96), (64, 64)):
            engine.backbone(extractors[0], size)
        assert len(list((tmp_path / "of sizes").rglob("*.xml"))) == 2

    @pytest.mark.parametrize("what", ["head", "pixels", "backbone", "backbone in two parts"])
    def test_what_was_compiled_is_found_again(
        self, tmp_path: Path, what: str, small_extractor: FeatureExtractor
    ) -> None:
        """Whatever OpenVINO has numbered in between."""
        head = made(FlowConfig(steps=2), NORMALISATIONS[0])
        energies = FusedHead(head)(maps())
        precision: Precision = "openvino-bfloat16" if "parts" in what else "float32"
        kept = []
        for _ in range(3):
            engine = pick_engine(precision, CPU, "openvino", tmp_path)
            if what == "head":
                engine.head(head)(maps())
            elif what == "pixels":
                list(engine.pixels(ScoreRule(), (32, 32))(energies))
            else:
                backbone = engine.backbone(small_extractor, (64, 64))
                assert isinstance(backbone, openvino_backbone.OpenVinoBackbone)
                assert len(backbone._alone._graphs) == (2 if "parts" in what else 1)
            kept.append(set(tmp_path.rglob("*.blob")))
        assert kept[0]
        assert kept == 3 * [kept[0]]

    def test_a_backbone_is_there_when_what_each_precision_needs_of_it_is(
        self, tmp_path: Path, small_extractor: FeatureExtractor
    ) -> None:
        """A start that relied on it would wait for weights to be rounded."""
        record, exact = record_of(small_extractor), openvino(tmp_path)
        rounding = pick_engine("openvino-bfloat16", CPU, "openvino", tmp_path)
        assert not exact.has_compiled(record, (64, 64))
        exact.backbone(small_extractor, (64, 64))
        assert exact.has_compiled(record, (64, 64))
        assert not rounding.has_compiled(record, (64, 64))
        rounding.backbone(small_extractor, (64, 64))
        assert rounding.has_compiled(record, (64, 64))
        assert rounding.forget()
        assert not exact.has_compiled(record, (64, 64))
        assert not list(tmp_path.rglob("*.safetensors"))

    def test_a_folder_that_cannot_be_written_to_costs_time_alone(
        self, tmp_path: Path, small_extractor: FeatureExtractor, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "file").write_bytes(b"")
        images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
        with caplog.at_level(logging.WARNING):
            found = openvino(tmp_path / "file" / "cache").backbone(small_extractor, (64, 64))(images)
        assert "each start compiles them" in caplog.text
        torch.testing.assert_close(found[0], small_extractor(images)[0], rtol=1e-3, atol=1e-4)


def test_a_backbone_that_cannot_be_converted_is_named(
    small_extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(openvino_backbone, "TorchScriptPythonDecoder", refuse)
    with pytest.raises(EngineError, match=f"cannot convert {small_extractor.name}: no such operation"):
        openvino().backbone(small_extractor, (64, 64))


def test_nothing_is_reported_to_anybody(
    small_extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO's own conversion sends what it converts to its makers, unless somebody opted out."""
    telemetry = pytest.importorskip("openvino_telemetry")
    monkeypatch.setattr(telemetry.Telemetry, "init", lambda *_, **__: pytest.fail("telemetry began"))
    openvino().backbone(small_extractor, (64, 64))


def test_a_head_that_is_not_there_is_not_made_up() -> None:
    running = openvino().head(Head((6, 4), NORMALISATIONS[0], FlowConfig(steps=2)).eval())
    with pytest.raises(ValueError, match=r"expected feature maps of \(6, 4\) channels; got \(6, 5\)"):
        running(maps((6, 5)))
