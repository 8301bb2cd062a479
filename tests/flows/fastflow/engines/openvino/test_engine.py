"""OpenVINO computes what torch computes, for every shape of flow and size of batch."""

import gc
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.bundle.models_folder import resolve
from flows.fastflow.config import FlowConfig, Kernels, ScoreRule
from flows.fastflow.detector import Detector
from flows.fastflow.engines.engine import Engine, pick_engine
from flows.fastflow.engines.errors import EngineError
from flows.fastflow.imaging.decoder import decode_image
from flows.fastflow.manifest import Normalisation
from flows.fastflow.model.fused import Energies, FusedHead
from flows.fastflow.model.head import Head
from tests.flows.fastflow.model.test_fused import CHANNELS, NORMALISATIONS, made, maps, with_cells
from tests.flows.fastflow.untrained import weights

pytest.importorskip("openvino")

from flows.fastflow.engines.openvino import backbone as openvino_backbone
from flows.fastflow.engines.openvino import engine as openvino_engine
from flows.fastflow.engines.openvino.engine import OpenVinoEngine

pytestmark = pytest.mark.threads(2)

CPU = torch.device("cpu")


def openvino() -> Engine:
    return pick_engine("float32", CPU, "openvino")


@pytest.fixture(scope="module")
def small_extractor() -> FeatureExtractor:
    return FeatureExtractor(weights(), (1, 2))


def parts_of(energies: Energies) -> tuple[torch.Tensor, ...]:
    rest = (energies.image, energies.mean, energies.square, energies.description)
    return (*energies.flow, *energies.gaussian, *(x for x in rest if x is not None))


def expect_equal(found: Energies, expected: Energies) -> None:
    for a, b in zip(parts_of(found), parts_of(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def sizes(channels: Sequence[int] = CHANNELS) -> list[tuple[int, ...]]:
    return [tuple(m.shape[1:]) for m in maps(channels, n=1)]


@pytest.mark.parametrize(
    ("normalisation", "permutation", "kernels"),
    [
        (NORMALISATIONS[0], "halves", "depthwise-5"),
        (NORMALISATIONS[1], "index", "depthwise-5"),
        (NORMALISATIONS[2], "halves", "3-1"),
        (NORMALISATIONS[0], "index", "3-1"),
    ],
    ids=["default", "index", "layer", "kernels"],
)
def test_energies_are_those_of_the_inference_form(
    normalisation: Normalisation, permutation: Literal["halves", "index"], kernels: Kernels
) -> None:
    flow, channels = FlowConfig(steps=2, kernels=kernels, permutation=permutation, clamp=1.5), (6, 5)
    head = made(flow, normalisation, channels)
    running, given = openvino().head(head, describes=True), maps(channels, n=1)
    expected = FusedHead(head, describes=True)(given)
    expect_equal(running(given), expected)
    running.specialise(sizes(channels))
    expect_equal(running(given), expected)


@pytest.mark.parametrize(("channels", "n"), [((6,), 1), ((4, 6, 8, 2), 3), (CHANNELS, 13)])
def test_any_number_of_scales_and_images(channels: Sequence[int], n: int) -> None:
    head = made(FlowConfig(steps=2), NORMALISATIONS[0], channels)
    expect_equal(openvino().head(head)(maps(channels, n=n)), FusedHead(head)(maps(channels, n=n)))


def test_energy_of_cells_is_that_of_the_inference_form() -> None:
    head = with_cells()
    running = openvino().head(head)
    for _ in range(2):
        for n in (1, 5):
            expect_equal(running(maps(n=n)), FusedHead(head)(maps(n=n)))
        running.specialise(sizes())


def test_energies_without_flows_are_those_of_the_inference_form() -> None:
    head, given = with_cells(steps=0), maps(n=1)
    running, expected = openvino().head(head, describes=True), FusedHead(head, describes=True)(given)
    assert all(a is b for a, b in zip(expected.flow, expected.gaussian, strict=True))
    expect_equal(running(given), expected)
    running.specialise(sizes())
    expect_equal(running(given), expected)


def test_channels_of_another_number_are_rejected() -> None:
    running = openvino().head(Head((6, 4), NORMALISATIONS[0], FlowConfig(steps=2)).eval())
    with pytest.raises(ValueError, match=r"expected feature maps of \(6, 4\) channels; got \(6, 5\)"):
        running(maps((6, 5)))


def test_heads_of_one_shape_share_graphs_but_not_weights() -> None:
    of_maps = [(x.shape[2], x.shape[3]) for x in maps()]
    one, other = (made(FlowConfig(steps=1), NORMALISATIONS[0], sizes=of_maps) for _ in range(2))
    for parameter in other.flow.parameters():
        parameter.mul_(0.5)
    other.gaussian.get_buffer("mean_0").mul_(2)
    engine = OpenVinoEngine("float32")
    running = [engine.head(head) for head in (one, other)]
    graphs = []
    for _ in range(2):
        for computed, head in zip(running, (one, other), strict=True):
            expect_equal(computed(maps(n=1)), FusedHead(head)(maps(n=1)))
            graphs.append(engine.shared_graph(FusedHead(head), tuple(tuple(m.shape) for m in maps(n=1))))
    assert all(graph is graphs[0] for graph in graphs)
    running[1].specialise(sizes())
    for n in (1, 8):
        for computed, head in zip(running, (one, other), strict=True):
            expect_equal(computed(maps(n=n)), FusedHead(head)(maps(n=n)))


def test_memory_of_own_graphs_is_bounded_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = OpenVinoEngine("float32")
    heads = [made(FlowConfig(steps=1), NORMALISATIONS[0], (6,)) for _ in range(2)]
    running = [engine.head(head) for head in heads]
    running[0].specialise(sizes((6,)))
    monkeypatch.setattr(openvino_engine, "_OWN_BYTES", running[0].own_bytes)
    running[1].specialise(sizes((6,)))
    assert (running[0].own_bytes > 0, running[1].own_bytes) == (True, 0)
    expect_equal(running[1](maps((6,), n=1)), FusedHead(heads[1])(maps((6,), n=1)))
    del running[0]
    gc.collect()
    running[0].specialise(sizes((6,)))
    assert running[0].own_bytes > 0


def test_batches_do_not_wait_for_a_backbone_that_is_compiled(
    small_extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, head = openvino(), made(FlowConfig(steps=1), NORMALISATIONS[0])
    begun, go_on = threading.Event(), threading.Event()

    class Slow(openvino_backbone.OpenVinoBackbone):
        def __init__(self, *args: Any) -> None:
            begun.set()
            assert go_on.wait(60)
            super().__init__(*args)

    monkeypatch.setattr(openvino_engine, "OpenVinoBackbone", Slow)
    with ThreadPoolExecutor(2) as others:
        backbone = others.submit(engine.backbone, small_extractor, (64, 64))
        try:
            assert begun.wait(60)
            found = others.submit(engine.head(head), maps(n=3)).result(timeout=60)
            pixels = engine.pixels(ScoreRule(), (32, 32))(found)  # an iterator that has not begun
            assert len(others.submit(list, pixels).result(timeout=60)) == 3
        finally:
            go_on.set()
        backbone.result(timeout=60)


class TestBackbone:
    @pytest.mark.parametrize(("n", "threads"), [(1, 1), (3, 1), (1, 2), (3, 2), (27, 2), (8, 3), (5, 9)])
    def test_maps_are_those_of_torch(self, small_extractor: FeatureExtractor, n: int, threads: int) -> None:
        torch.set_num_threads(threads)
        backbone = openvino().backbone(small_extractor, (64, 64))
        images = torch.randint(0, 256, (n, 64, 64, 3), dtype=torch.uint8)
        found, last = backbone(images), backbone(images[-1:])
        for several, one, expected in zip(found, last, small_extractor(images), strict=True):
            torch.testing.assert_close(several, expected, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(several[-1:], one, rtol=1e-5, atol=1e-6)

    def test_second_part_goes_on_with_what_the_first_one_gave(self) -> None:
        extractor = FeatureExtractor(weights(name="test_efficientnet"), (0, 3), (64, 96))
        backbone = pick_engine("openvino-bfloat16", CPU).backbone(extractor, (64, 96))
        images = torch.randint(0, 256, (5, 64, 96, 3), dtype=torch.uint8)
        found, last = backbone(images), backbone(images[-1:])
        for several, one, exact in zip(found, last, extractor(images), strict=True):
            assert several.shape == exact.shape
            torch.testing.assert_close(several[-1:], one, rtol=1e-2, atol=1e-2)
            assert float((several - exact).pow(2).mean().sqrt()) < 0.1 * float(exact.std())

    def test_models_share_it_and_threads_use_it_at_once(self, small_extractor: FeatureExtractor) -> None:
        engine = openvino()
        first, second = (engine.backbone(small_extractor, (64, 64)) for _ in range(2))
        assert first is second
        batches = [torch.full((n, 64, 64, 3), 9 * n, dtype=torch.uint8) for n in (1, 16, 2)]
        alone = [first(batch) for batch in batches]
        with ThreadPoolExecutor(3) as pool:
            for _ in range(5):
                for found, expected in zip(pool.map(second, batches), alone, strict=True):
                    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    def test_large_one_is_laid_out_once(
        self, small_extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        small = openvino().backbone(small_extractor, (64, 64))
        monkeypatch.setattr(openvino_engine, "_STREAMED_BYTES", small.nbytes // 2 - 1)
        large = openvino().backbone(small_extractor, (64, 64))
        assert (small.batches, large.batches) == ((2, 1), (1,))
        assert large.nbytes == small.nbytes // 2

    def test_one_that_failed_computes_the_next_batch(self, small_extractor: FeatureExtractor) -> None:
        backbone = openvino().backbone(small_extractor, (64, 64))
        with pytest.raises(RuntimeError):
            backbone(torch.zeros((4, 32, 64, 3), dtype=torch.uint8))
        images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
        torch.testing.assert_close(backbone(images)[0], small_extractor(images)[0], rtol=1e-3, atol=1e-4)

    def test_one_that_cannot_be_converted_is_named(
        self, small_extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError("no such operation")

        monkeypatch.setattr(openvino_backbone, "TorchScriptPythonDecoder", refuse)
        with pytest.raises(EngineError, match=f"cannot convert {small_extractor.name}: no such operation"):
            openvino().backbone(small_extractor, (64, 64))

    def test_nothing_is_reported_to_anybody(
        self, small_extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """OpenVINO's own conversion sends what it converts to its makers, unless somebody opted out."""
        telemetry = pytest.importorskip("openvino_telemetry")
        monkeypatch.setattr(telemetry.Telemetry, "init", lambda *_, **__: pytest.fail("telemetry began"))
        openvino().backbone(small_extractor, (64, 64))


class TestDetector:
    def test_scores_are_the_same_and_it_says_by_whom(
        self, tiny_bundle_store: Path, tiny_images: dict[str, list[bytes]]
    ) -> None:
        folder = resolve(tiny_bundle_store, "tiny")
        reference = Detector.load(folder, device="cpu")
        detector = Detector.load(folder, device="cpu", engine=openvino())
        assert detector.engine == "openvino-cpu-float32"
        images = [decode_image(data) for data in (*tiny_images["good"][:3], *tiny_images["defect"][:2])]
        for found, expected in zip(detector.predict(images), reference.predict(images), strict=True):
            assert found.score == pytest.approx(expected.score, rel=1e-4)
            assert found.decision == expected.decision
            np.testing.assert_allclose(found.score_map, expected.score_map, rtol=1e-3, atol=1e-4)

    def test_once_specialised_no_size_of_batch_is_compiled_any_more(
        self, tiny_bundle_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scorer = Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu", engine=openvino()).scorer
        scorer.warm_up()
        scorer.specialise()
        monkeypatch.setattr(openvino_engine, "build_head_graph", lambda *_, **__: pytest.fail("compiled"))
        scorer.score([np.zeros((*scorer.input_size, 3), np.uint8)] * 15)
