import asyncio
import copy
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.errors.problems import Problem
from app.scheduling import batcher as module
from app.scheduling.batcher import Batcher, BatchResult
from flows.fastflow.config import Geometry
from flows.fastflow.detector import Detector
from flows.fastflow.imaging import decoder
from flows.fastflow.imaging.geometry import PreparedImage
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.model.gaussian import PositionGaussian
from tests.app.support.backbone_gate import BackboneGate
from tests.support.waiting import until

Images = dict[str, list[bytes]]
Call = Coroutine[Any, Any, BatchResult]

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def prepared(detector: Detector, tiny_images: Images) -> list[PreparedImage]:
    return [
        detector.prepare(decoder.decode_image(data))
        for kind in ("good", "defect")
        for data in tiny_images[kind]
    ]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[BackboneGate]:
    """Holds every pass of the backbone. Time stands still meanwhile, so costs stay 0."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    made = BackboneGate(monkeypatch)
    yield made
    made.open()


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    with closing(Batcher(16)) as batcher:
        yield batcher


def of_category(detector: Detector, category: str, size: tuple[int, int] | None = None) -> Detector:
    """Make the same model for another category, optionally with another input size."""
    scorer = detector.scorer
    size = size or scorer.input_size
    manifest = detector.manifest.model_copy(update={"category": category, "input_size": size})
    head = scorer.head
    if size != scorer.input_size:  # whose positions have no means of their own
        head = copy.deepcopy(head)
        head.gaussian, head.cells = PositionGaussian(scorer.extractor.channels), None
    own = Scorer(scorer.extractor, head, size, scorer.rule, scorer.geometry)
    return Detector(manifest, detector.sha256, own)


async def enter(gate: BackboneGate, call: Call) -> "asyncio.Task[BatchResult]":
    """Start a call and wait until its batch is computed."""
    task = asyncio.create_task(call)
    await gate.wait_until_entered()
    return task


async def after(batcher: Batcher, gate: BackboneGate, first: Call, calls: Sequence[Call]) -> list[Any]:
    """Queue calls behind a first one, release all, and return their results or errors."""
    running = await enter(gate, first)
    rest = [asyncio.create_task(call) for call in calls]
    await until(lambda: batcher.pending == 1 + len(rest))
    gate.open()
    await running
    return await asyncio.gather(*rest, return_exceptions=True)


def expect_alone(result: BatchResult, detector: Detector, image: PreparedImage, region: Any = None) -> None:
    """Assert that a result equals that of the image alone."""
    [alone] = detector.scorer.score_prepared([image], [region])
    assert result.scored.score == pytest.approx(alone.score, rel=1e-5)
    np.testing.assert_allclose(result.scored.score_map, alone.score_map, rtol=1e-4, atol=1e-5)


class TestBatches:
    async def test_categories_share_a_pass_with_their_own_regions(
        self, detector: Detector, prepared: list[PreparedImage], gate: BackboneGate
    ) -> None:
        region = np.zeros((64, 64), np.bool_)
        region[:20] = True
        a, b = of_category(detector, "a"), of_category(detector, "b")
        jobs = [(a, prepared[1], None), (b, prepared[2], region), (a, prepared[3], None)]
        seen: list[tuple[int, Counter[str]]] = []
        with closing(Batcher(16, lambda size, _, names: seen.append((size, Counter(names))))) as batcher:
            calls = [batcher.score(*job) for job in jobs]
            results = await after(batcher, gate, batcher.score(detector, prepared[0]), calls)
            assert (batcher.passes, batcher.pending) == (2, 0)
        assert [result.batch_size for result in results] == [3, 3, 3]
        for result, job in zip(results, jobs, strict=True):
            expect_alone(result, *job)
        assert not results[1].scored.score_map[20:].any()
        assert seen == [(1, Counter(["tiny"])), (3, Counter(a=2, b=1))]

    @pytest.mark.parametrize("other", [{"name": "another"}, {"mean": (0.1,) * 3}, {"std": (0.9,) * 3}])
    async def test_different_backbones_are_computed_apart(
        self,
        batcher: Batcher,
        detector: Detector,
        prepared: list[PreparedImage],
        gate: BackboneGate,
        other: dict[str, object],
    ) -> None:
        """Such as efficientnet_lite0 and tf_efficientnet_lite0, which pad differently."""
        scorer, extractor = detector.scorer, copy.copy(detector.scorer.extractor)
        vars(extractor).update(other)
        manifest = detector.manifest.model_copy(update={"category": "other"})
        own = Scorer(extractor, scorer.head, scorer.input_size, scorer.rule, scorer.geometry)
        models = [detector, Detector(manifest, detector.sha256, own), of_category(detector, "third")]
        calls = [batcher.score(one, prepared[0]) for one in models]
        results = await after(batcher, gate, batcher.score(detector, prepared[0]), calls)
        assert [result.batch_size for result in results] == [2, 1, 2]

    async def test_batch_has_one_input_size_and_a_limit(
        self, detector: Detector, prepared: list[PreparedImage], gate: BackboneGate
    ) -> None:
        wide = of_category(detector, "wide", (64, 96))
        image = wide.prepare(prepared[0].pixels)
        with closing(Batcher(3)) as batcher:
            calls = [batcher.score(detector, prepared[i]) for i in range(5)] + [batcher.score(wide, image)]
            results = await after(batcher, gate, batcher.score(detector, prepared[0]), calls)
        assert [result.batch_size for result in results] == [3, 3, 3, 2, 2, 1]
        assert results[-1].scored.score_map.shape == (64, 96)


class Clock:
    """A clock that advances by fixed seconds per image of an input size."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[tuple[int, int], float]) -> None:
        self.now = 1000.0
        features = Scorer.features

        def takes(scorer: Scorer, tiles: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
            self.now += len(tiles) * seconds[scorer.input_size]
            return features(scorer, tiles)

        monkeypatch.setattr(Scorer, "features", takes)
        monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now


SMALL, WIDE, TALL = (64, 64), (64, 96), (96, 64)


class TestTime:
    async def test_models_of_other_groups_share_the_time(
        self, detector: Detector, prepared: list[PreparedImage], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An image of the slow model takes ten times as long, so the other one gets ten."""
        Clock(monkeypatch, {SMALL: 0.01, WIDE: 0.1})
        gate = BackboneGate(monkeypatch)
        slow = of_category(detector, "slow", WIDE)
        image = slow.prepare(prepared[0].pixels)
        seen: list[tuple[str, int]] = []
        with closing(Batcher(16, lambda size, _, names: seen.append((names[0], size)))) as batcher:
            for model, one in ((detector, prepared[0]), (slow, image)):  # so that their costs are known
                gate.let_one_through()
                await batcher.score(model, one)
                await gate.wait_until_entered()
            calls = [batcher.score(slow, image) for _ in range(8)]
            calls += [batcher.score(detector, prepared[0]) for _ in range(90)]
            await after(batcher, gate, batcher.score(detector, prepared[0]), calls)
            await until(lambda: sum(size for _, size in seen) == 101)
        # Others wait for at most a quarter of a second of the slow one, in which it has two images computed.
        assert max(size for name, size in seen if name == "slow") == 2
        done = Counter[str]()
        for name, size in seen[3:]:
            done[name] += size
            if done["tiny"] < 80:  # as long as both wait, within the longest batches of both
                assert abs(10 * done["slow"] - done["tiny"]) <= 20 + 16

    async def test_category_ahead_of_another_group_joins_no_batch(
        self, detector: Detector, prepared: list[PreparedImage], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds = {SMALL: 0.01, WIDE: 0.1, TALL: 1.0}
        Clock(monkeypatch, seconds)
        gate = BackboneGate(monkeypatch)
        a, b = of_category(detector, "a"), of_category(detector, "b")
        c, d = of_category(detector, "c", WIDE), of_category(detector, "d", TALL)
        seen: list[list[str]] = []
        with closing(Batcher(16, lambda _, __, names: seen.append(list(names)))) as batcher:

            def score(model: Detector) -> Call:
                return batcher.score(model, model.prepare(prepared[0].pixels))

            for model in (a, b, c, d):  # so that their costs are known
                gate.let_one_through()
                await score(model)
                await gate.wait_until_entered()
            tasks = [await enter(gate, score(d))]
            tasks += [asyncio.create_task(score(model)) for model in (d, *[b] * 16)]
            await until(lambda: batcher.pending == 18)
            gate.let_one_through()
            await gate.wait_until_entered()
            seconds[SMALL] = 0.05  # so that b is ahead of those who come now, and behind d
            tasks += [asyncio.create_task(score(model)) for model in (a, b, c)]
            await until(lambda: batcher.pending == 20)
            gate.open()
            await asyncio.gather(*tasks)
            await until(lambda: sum(map(len, seen)) == 25)
        assert seen[4:] == [["d"], ["b"] * 16, ["a"], ["c"], ["b"], ["d"]]

    async def test_expected_seconds_grow_with_the_queue(
        self,
        batcher: Batcher,
        detector: Detector,
        prepared: list[PreparedImage],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        clock = Clock(monkeypatch, {SMALL: 0.1})
        gate = BackboneGate(monkeypatch)
        assert batcher.expected_seconds("tiny", 100, {}) == 0
        gate.let_one_through()
        await batcher.score(detector, prepared[0])
        await gate.wait_until_entered()
        assert batcher.expected_seconds("tiny", 100, {}) == batcher.expected_wait() == 0
        assert batcher.expected_seconds("tiny", 1, {"tiny": 3}) == pytest.approx(0.4 + 0.1)
        running = await enter(gate, batcher.score(detector, prepared[0]))
        assert batcher.expected_wait() == pytest.approx(0.1)
        clock.now += 0.06
        assert batcher.expected_wait() == pytest.approx(0.04)
        flood = [asyncio.create_task(batcher.score(detector, prepared[0])) for _ in range(40)]
        await until(lambda: batcher.pending == 41)
        assert batcher.expected_wait() == pytest.approx(4.04)
        # The running batch, its own line, the batch that it comes with.
        assert batcher.expected_seconds("tiny", 1, {}) == pytest.approx(0.04 + 4.1 + 0.1)
        few = batcher.expected_seconds("few", 1, {"tiny": 60})
        assert few == pytest.approx(0.04 + 0.1 + 0.1)
        gate.open()
        await asyncio.gather(running, *flood)


class TestCancelled:
    async def test_cancelled_image_leaves_the_queue(
        self, batcher: Batcher, detector: Detector, prepared: list[PreparedImage], gate: BackboneGate
    ) -> None:
        first = await enter(gate, batcher.score(detector, prepared[0]))
        left = asyncio.create_task(batcher.score(detector, prepared[1]))
        await until(lambda: batcher.pending == 2)
        left.cancel()
        await until(lambda: batcher.pending == 1)
        gate.open()
        await first
        assert batcher.passes == 1

    async def test_cancelled_running_image_spares_the_others(
        self, batcher: Batcher, detector: Detector, prepared: list[PreparedImage], gate: BackboneGate
    ) -> None:
        heard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        left = await enter(gate, batcher.score(detector, prepared[0]))
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        gate.open()
        await batcher.score(detector, prepared[1])
        assert heard == []


class TestTiles:
    @pytest.fixture
    def tiled(self, detector: Detector) -> Detector:
        scorer, tile = detector.scorer, Geometry(fit="tile")
        manifest = detector.manifest.model_copy(update={"category": "tiled", "geometry": tile})
        cut = Scorer(scorer.extractor, scorer.head, scorer.input_size, scorer.rule, geometry=tile)
        return Detector(manifest, detector.sha256, cut)

    @pytest.fixture
    def four_tiles(self, tiled: Detector) -> PreparedImage:
        pixels = np.random.default_rng(1).integers(0, 256, (100, 100, 3), dtype=np.uint8)
        cut = tiled.prepare(pixels)
        assert len(cut.layout) == 4
        return cut

    @pytest.mark.parametrize(("max_batch", "sizes"), [(16, [3, 3, 3]), (8, [2, 1, 2])])
    async def test_tiles_share_a_pass_and_count_as_images(
        self,
        detector: Detector,
        tiled: Detector,
        four_tiles: PreparedImage,
        prepared: list[PreparedImage],
        gate: BackboneGate,
        max_batch: int,
        sizes: list[int],
    ) -> None:
        jobs = [(tiled, four_tiles), (detector, prepared[1]), (tiled, four_tiles)]
        if max_batch == 8:
            jobs[1] = jobs[0]
        with closing(Batcher(max_batch)) as batcher:
            calls = [batcher.score(*job) for job in jobs]
            results = await after(batcher, gate, batcher.score(detector, prepared[0]), calls)
        assert sorted(result.batch_size for result in results) == sorted(sizes)
        for result, job in zip(results, jobs, strict=True):
            expect_alone(result, *job)

    async def test_large_image_is_computed_alone(
        self,
        batcher: Batcher,
        detector: Detector,
        tiled: Detector,
        four_tiles: PreparedImage,
        prepared: list[PreparedImage],
        gate: BackboneGate,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("flows.fastflow.inference.scorer._CHUNK_PIXELS", 3 * 64 * 64)
        calls = [batcher.score(tiled, four_tiles), batcher.score(detector, prepared[1])]
        large, small = await after(batcher, gate, batcher.score(detector, prepared[0]), calls)
        assert batcher.passes == 3
        assert (large.batch_size, small.batch_size) == (1, 1)
        expect_alone(large, tiled, four_tiles)


class TestFailures:
    @pytest.mark.parametrize("where", ["backbone", "head"])
    async def test_bad_image_fails_alone(
        self,
        batcher: Batcher,
        detector: Detector,
        prepared: list[PreparedImage],
        gate: BackboneGate,
        where: str,
    ) -> None:
        other = of_category(detector, "other")
        bad, region = prepared[3], None
        if where == "backbone":
            bad = replace(bad, pixels=bad.pixels.astype(np.float32))
        else:
            region = np.zeros((64, 64), np.bool_)  # a region without a pixel is refused
        calls = [
            batcher.score(detector, prepared[1]),
            batcher.score(other, bad, region),
            batcher.score(other, prepared[2]),
        ]
        good, refused, also_good = await after(batcher, gate, batcher.score(detector, prepared[0]), calls)
        assert batcher.passes == 1 + 1 + 3
        assert isinstance(refused, ValueError)
        expect_alone(good, detector, prepared[1])
        expect_alone(also_good, other, prepared[2])

    @pytest.mark.parametrize("still", [True, False])
    async def test_lost_device_is_reported_for_good(
        self,
        batcher: Batcher,
        detector: Detector,
        prepared: list[PreparedImage],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        still: bool,
    ) -> None:
        def explode(*_: object) -> list[Tensor]:
            raise RuntimeError("CUDA error: an illegal memory access")

        monkeypatch.setattr(module, "can_compute", lambda _: still)
        await batcher.score(detector, prepared[0])
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(Scorer, "features", explode)
                with pytest.raises(RuntimeError):
                    await batcher.score(detector, prepared[0])
        if still:
            batcher.require_alive()
        else:
            assert batcher.lost == "cpu no longer computes: restart the server."
            with pytest.raises(Problem, match="restart the server"):
                batcher.require_alive()
        assert caplog.text.count("no longer computes") == (0 if still else 1)

    def test_device_is_probed(self, caplog: pytest.LogCaptureFixture) -> None:
        assert module.can_compute(torch.device("cpu"))
        assert not module.can_compute(torch.device("cuda:99"))
        assert "cuda:99" in caplog.text


async def test_close_finishes_the_batch_and_ends_the_thread(
    detector: Detector, prepared: list[PreparedImage], gate: BackboneGate
) -> None:
    before = set(threading.enumerate())
    batcher = Batcher(16)
    first = await enter(gate, batcher.score(detector, prepared[0]))
    closed = asyncio.create_task(asyncio.to_thread(batcher.close))
    await asyncio.sleep(0)
    gate.open()
    assert (await first).batch_size == 1
    await closed
    assert batcher.pending == 0
    assert not [one for one in set(threading.enumerate()) - before if one.name == "inference"]


async def test_unloaded_model_is_freed_without_another_batch(
    batcher: Batcher, detector: Detector, prepared: list[PreparedImage]
) -> None:
    mine = of_category(detector, "mine")
    gone = weakref.ref(mine)
    await batcher.score(mine, prepared[0])
    del mine

    def freed() -> bool:
        gc.collect()
        return gone() is None

    await until(freed)  # the thread drops it some time after its answer
