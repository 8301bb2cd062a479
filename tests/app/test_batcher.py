import asyncio
import copy
import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from app import batcher as module
from app.batch import Batched
from app.batcher import Batcher, Observer
from app.problems import Problem
from flows.fastflow import images, models_folder
from flows.fastflow.detector import Detector
from flows.fastflow.gaussian import PositionGaussian
from flows.fastflow.geometry import Geometry, Prepared
from flows.fastflow.scorer import Scorer
from tests.app.gate import Gate
from tests.waiting import eventually, until

Images = dict[str, list[bytes]]
T = TypeVar("T")
TILE = Geometry(fit="tile")
Scenario = Callable[[Batcher], Coroutine[Any, Any, T]]


@pytest.fixture(scope="module")
def detector(tiny_bundle_store: Path) -> Detector:
    return Detector.load(models_folder.resolve(tiny_bundle_store, "tiny"), device="cpu")


@pytest.fixture(scope="module")
def prepared(detector: Detector, tiny_images: Images) -> list[Prepared]:
    return [
        detector.prepare(images.decode(data)) for kind in ("good", "defect") for data in tiny_images[kind]
    ]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Every backbone's pass waits here for permission."""
    made = Gate(monkeypatch)
    yield made
    made.open()


def run(scenario: Scenario[T], *, max_batch: int = 16, observer: Observer | None = None) -> T:
    async def main() -> T:
        batcher = Batcher(max_batch, observer)
        try:
            return await scenario(batcher)
        finally:
            batcher.close()

    return asyncio.run(main())


def of_category(detector: Detector, category: str, size: tuple[int, int] | None = None) -> Detector:
    """The same model as another category's, perhaps at another input size."""
    scorer = detector.scorer
    size = size or scorer.input_size
    manifest = detector.manifest.model_copy(update={"category": category, "input_size": size})
    head = scorer.head
    if size != scorer.input_size:  # whose positions have no means of their own
        head = copy.deepcopy(head)
        head.gaussian = PositionGaussian(scorer.extractor.channels)
    own = Scorer(scorer.extractor, head, size, scorer.rule, scorer.geometry)
    return Detector(manifest, detector.sha256, own)


async def problem(call: Awaitable[object]) -> str:
    with pytest.raises(Problem) as caught:
        await call
    return caught.value.name


async def at_once(
    batcher: Batcher, calls: Sequence[Coroutine[Any, Any, Batched]]
) -> "list[asyncio.Task[Batched]]":
    """Let calls be queued before any of them is taken up; their tasks."""
    with batcher._changed:
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0)
    return tasks


async def let_wait(
    batcher: Batcher,
    gate: Gate,
    first: Coroutine[Any, Any, Batched],
    calls: Sequence[Coroutine[Any, Any, Batched]],
) -> "list[asyncio.Task[Batched]]":
    """Let calls wait while a first one is computed, and then all be; their tasks."""
    running = asyncio.create_task(first)
    await gate.wait_until_entered()
    rest = [asyncio.create_task(call) for call in calls]
    await until(lambda: batcher.pending == 1 + len(rest))
    gate.open()
    await running
    return rest


@contextmanager
def complaints(loop: asyncio.AbstractEventLoop) -> Iterator[list[str]]:
    """What the event loop complains of, such as exceptions that nobody looked at."""
    heard: list[str] = []
    loop.set_exception_handler(lambda _, context: heard.append(context["message"]))
    yield heard
    gc.collect()


@pytest.mark.parametrize("other", [{"name": "another"}, {"mean": (0.1,) * 3}, {"std": (0.9,) * 3}])
def test_backbones_of_the_same_weights_that_see_otherwise_are_computed_apart(
    detector: Detector, prepared: list[Prepared], other: dict[str, object]
) -> None:
    """As efficientnet_lite0 and tf_efficientnet_lite0, which pad and scale differently."""
    scorer, extractor = detector.scorer, copy.copy(detector.scorer.extractor)
    vars(extractor).update(other)
    manifest = detector.manifest.model_copy(update={"category": "other"})
    own = Scorer(extractor, scorer.head, scorer.input_size, scorer.rule, scorer.geometry)
    detectors = [detector, Detector(manifest, detector.sha256, own), of_category(detector, "third")]

    async def scenario(batcher: Batcher) -> list[Batched]:
        calls = [batcher.predict(one, prepared[0]) for one in detectors]
        return await asyncio.gather(*await at_once(batcher, calls))

    assert sorted(batched.batch_size for batched in run(scenario)) == [1, 2, 2]


def test_predicts_what_the_detector_predicts(detector: Detector, prepared: list[Prepared]) -> None:
    async def scenario(batcher: Batcher) -> Batched:
        return await batcher.predict(detector, prepared[0])

    batched = run(scenario)
    [alone] = detector.predict_features(detector.scorer.features(prepared[0].tiles()))
    assert batched.prediction.score == alone.score
    assert batched.prediction.p_value == alone.p_value
    np.testing.assert_array_equal(batched.prediction.score_map, alone.score_map)
    assert batched.batch_size == 1
    assert batched.waited >= 0
    assert batched.took > 0


def test_each_image_of_a_batch_gets_its_own_answer_and_region(
    detector: Detector, prepared: list[Prepared], gate: Gate
) -> None:
    regions: list[NDArray[np.bool_] | None] = [None, np.zeros((64, 64), np.bool_), None]
    assert regions[1] is not None
    regions[1][:20] = True
    others = [of_category(detector, name) for name in ("a", "b", "a")]
    others[2] = others[0]

    async def scenario(batcher: Batcher) -> list[Batched]:
        first = asyncio.create_task(batcher.predict(detector, prepared[0]))
        await gate.wait_until_entered()
        rest = [
            asyncio.create_task(batcher.predict(model, image, region))
            for model, image, region in zip(others, prepared[1:], regions, strict=False)
        ]
        await asyncio.sleep(0)
        gate.open()
        await first
        return await asyncio.gather(*rest)

    results = run(scenario)
    for batched, image, region in zip(results, prepared[1:], regions, strict=False):
        [alone] = detector.predict_features(detector.scorer.features(image.tiles()), [region])
        assert batched.batch_size == 3
        assert batched.prediction.score == pytest.approx(alone.score, rel=1e-5)
        np.testing.assert_allclose(batched.prediction.score_map, alone.score_map, rtol=1e-4, atol=1e-5)
    assert not results[1].prediction.score_map[20:].any()
    assert results[0].prediction.score_map[20:].any()


class TestBatches:
    def test_gather_while_one_is_computed_and_share_a_pass(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        others = [of_category(detector, name) for name in "abcd"]

        async def scenario(batcher: Batcher) -> list[int]:
            first = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            rest = [asyncio.create_task(batcher.predict(d, p)) for d in others for p in prepared[:2]]
            await until(lambda: batcher.pending == 9)
            gate.open()
            sizes = [batched.batch_size for batched in await asyncio.gather(first, *rest)]
            assert (batcher.batches, batcher.passes, batcher.images) == (2, 2, 9)
            assert batcher.pending == 0
            return sizes

        assert run(scenario) == [1] + [8] * 8

    def test_have_at_most_so_many_images(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        async def scenario(batcher: Batcher) -> list[int]:
            jobs = [asyncio.create_task(batcher.predict(detector, p)) for p in prepared[:8]]
            await gate.wait_until_entered()
            gate.open()
            return [batched.batch_size for batched in await asyncio.gather(*jobs)]

        sizes = run(scenario, max_batch=3)
        assert max(sizes) == 3
        assert len(sizes) == 8

    def test_are_of_one_input_size(self, detector: Detector, prepared: list[Prepared], gate: Gate) -> None:
        wide = of_category(detector, "wide", (64, 96))
        image = wide.prepare(prepared[0].pixels)

        async def scenario(batcher: Batcher) -> list[Batched]:
            known = asyncio.create_task(batcher.predict(wide, image))
            await gate.wait_until_entered()
            gate.let_one_through()
            await known
            calls = [
                batcher.predict(wide, image),
                batcher.predict(detector, prepared[1]),
                batcher.predict(wide, image),
            ]
            first = batcher.predict(detector, prepared[0])
            return await asyncio.gather(*await let_wait(batcher, gate, first, calls))

        results = run(scenario)
        assert [batched.batch_size for batched in results] == [2, 1, 2]
        assert results[0].prediction.score_map.shape == (64, 96)

    def test_are_large_and_of_many_categories_at_saturation(
        self, detector: Detector, prepared: list[Prepared]
    ) -> None:
        categories = [of_category(detector, name) for name in "abcdefgh"]
        seen: list[tuple[int, Counter[str]]] = []

        def observe(size: int, seconds: float, names: Sequence[str]) -> None:
            assert seconds > 0
            seen.append((size, Counter(names)))

        async def client(batcher: Batcher, number: int) -> None:
            for i in range(6):
                model = categories[(number + i) % 8]
                await batcher.predict(model, prepared[(number + i) % len(prepared)])

        async def scenario(batcher: Batcher) -> None:
            await asyncio.gather(*(client(batcher, number) for number in range(64)))
            assert batcher.images == 64 * 6
            assert batcher.passes == batcher.batches
            assert batcher.images / batcher.batches > 4

        run(scenario, observer=observe)
        assert sum(size for size, _ in seen) == 64 * 6
        assert max(len(names) for _, names in seen) > 4

    def test_an_observer_that_fails_does_no_harm(self, detector: Detector, prepared: list[Prepared]) -> None:
        def fails(*_: object) -> None:
            raise RuntimeError("telemetry")

        async def scenario(batcher: Batcher) -> list[str]:
            with complaints(asyncio.get_running_loop()) as heard:
                for image in prepared[:2]:
                    await batcher.predict(detector, image)
                await until(lambda: len(heard) == 2)
            return heard

        assert len(run(scenario, observer=fails)) == 2


def test_a_flood_of_one_category_delays_another_by_a_batch(
    detector: Detector, prepared: list[Prepared], gate: Gate
) -> None:
    quiet = of_category(detector, "quiet")
    seen: list[Sequence[str]] = []

    async def scenario(batcher: Batcher) -> None:
        flood = [asyncio.create_task(batcher.predict(detector, prepared[0])) for _ in range(60)]
        await gate.wait_until_entered()
        one = asyncio.create_task(batcher.predict(quiet, prepared[1]))
        await until(lambda: batcher.pending == 61)
        gate.open()
        await asyncio.gather(one, *flood)
        await until(lambda: sum(map(len, seen)) == 61)

    run(scenario, max_batch=8, observer=lambda _size, _seconds, names: seen.append(names))
    # The batch that was running, and the one that it was in.
    [at] = [number for number, names in enumerate(seen) if "quiet" in names]
    assert at <= 1


def test_models_of_several_groups_share_the_time(
    detector: Detector, prepared: list[Prepared], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of the slow model takes ten times as long: the other one has ten computed for each."""
    slow = of_category(detector, "slow", (64, 96))
    image = slow.prepare(prepared[0].pixels)
    clock = _Clock(monkeypatch, gate)
    features = Scorer.features
    seen: list[tuple[str, int]] = []

    def takes(scorer: Scorer, batch: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        clock.now += len(batch) * (0.1 if scorer.input_size == (64, 96) else 0.01)
        return features(scorer, batch)

    monkeypatch.setattr(Scorer, "features", takes)

    async def scenario(batcher: Batcher) -> None:
        for model, pixels in ((detector, prepared[0]), (slow, image)):
            await clock.batch(batcher, model, [pixels], 0)  # so that it is known how long they take
        first = asyncio.create_task(batcher.predict(detector, prepared[0]))
        await gate.wait_until_entered()
        rest = [asyncio.create_task(batcher.predict(slow, image)) for _ in range(8)]
        rest += [asyncio.create_task(batcher.predict(detector, prepared[0])) for _ in range(90)]
        await until(lambda: batcher.pending == 99)
        gate.open()
        await asyncio.gather(first, *rest)
        await until(lambda: sum(size for _, size in seen) == 101)

    run(scenario, max_batch=16, observer=lambda size, _, names: seen.append((names[0], size)))
    batches = seen[3:]
    # Others wait for about a quarter of a second of the slow one, in which it has two or three computed.
    sizes = [size for name, size in batches if name == "slow"]
    assert max(sizes) <= 3
    turns = [number for number, (name, _) in enumerate(batches) if name == "slow"]
    between = [sum(size for _, size in batches[a + 1 : b]) for a, b in pairwise(turns)]
    # Ten for each, in whole batches of 16; taking turns by batches, it would be 16 for two or three.
    assert sum(between) == pytest.approx(10 * sum(sizes[:-1]), abs=8)


@pytest.mark.parametrize(("later", "size"), [(0.0, 2), (3590.0, 2), (3601.0, 8)])
def test_batches_are_full_unless_another_group_is_served(
    detector: Detector,
    prepared: list[Prepared],
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    later: float,
    size: int,
) -> None:
    clock = _Clock(monkeypatch, gate)
    slow = of_category(detector, "slow", (64, 96))
    image = slow.prepare(prepared[0].pixels)

    async def scenario(batcher: Batcher) -> int:
        await clock.batch(batcher, slow, [image], 2)
        await clock.batch(batcher, detector, prepared[:1], 0.01)
        clock.now += later
        running = asyncio.create_task(batcher.predict(slow, image))
        await gate.wait_until_entered()
        rest = [asyncio.create_task(batcher.predict(slow, image)) for _ in range(8)]
        await until(lambda: batcher.pending == 9)
        clock.now += 2
        gate.open()
        await running
        return (await asyncio.gather(*rest))[0].batch_size

    assert run(scenario, max_batch=8) == size


def test_a_group_that_is_new_beside_another_begins_with_a_batch_of_one(
    detector: Detector, prepared: list[Prepared], gate: Gate
) -> None:
    """Nobody knows yet how long it takes, and the other one's line waits for it."""
    new = of_category(detector, "new", (64, 96))
    image = new.prepare(prepared[0].pixels)

    async def scenario(batcher: Batcher) -> int:
        calls = [batcher.predict(new, image) for _ in range(8)]
        rest = await let_wait(batcher, gate, batcher.predict(detector, prepared[0]), calls)
        return (await asyncio.gather(*rest))[0].batch_size

    assert run(scenario, max_batch=8) == 1


def test_a_slow_first_batch_is_no_debt_for_ever(
    detector: Detector, prepared: list[Prepared], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that compiles something: fifteen more were counted as if each took as long, and never mended."""
    clock = _Clock(monkeypatch, gate)
    other = of_category(detector, "other", (64, 96))
    image = other.prepare(prepared[0].pixels)

    async def scenario(batcher: Batcher) -> None:
        await clock.batch(batcher, detector, prepared[:1], 3.0)
        await clock.batch(batcher, detector, prepared[:4], 0.2)
        [(_, start)] = batcher._queue._starts.items()
        # What the batches took: the first was counted when nothing was known.
        assert start == pytest.approx(3.2)
        clock.now += 100
        await clock.batch(batcher, other, [image], 0.01)
        assert batcher._queue._now > start

    run(scenario, max_batch=4)


class TestDeadlines:
    def test_one_that_has_passed_is_not_queued(self, detector: Detector, prepared: list[Prepared]) -> None:
        async def scenario(batcher: Batcher) -> str:
            name = await problem(batcher.predict(detector, prepared[0], None, time.monotonic()))
            assert batcher.pending == batcher.images == 0
            return name

        assert run(scenario) == "deadline-exceeded"

    def test_one_that_passes_in_the_queue_is_said_at_once_and_never_computed(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        async def scenario(batcher: Batcher) -> None:
            first = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            start = time.monotonic()
            name = await problem(batcher.predict(detector, prepared[1], None, start + 0.05))
            assert name == "deadline-exceeded"
            assert 0.05 <= time.monotonic() - start < 5
            assert batcher.pending == 1
            gate.open()
            await first
            assert batcher.images == 1

        run(scenario)

    def test_one_that_passes_during_the_computation_is_said_at_once(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        async def scenario(batcher: Batcher) -> None:
            other = asyncio.create_task(batcher.predict(detector, prepared[0]))
            late = asyncio.create_task(batcher.predict(detector, prepared[1], None, time.monotonic() + 0.1))
            await gate.wait_until_entered()
            assert await problem(late) == "deadline-exceeded"
            gate.open()
            await other

        run(scenario)

    def test_is_checked_right_before_computing_even_if_the_event_loop_is_busy(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        async def scenario(batcher: Batcher) -> None:
            first = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            deadline = time.monotonic() + 0.05
            late = asyncio.create_task(batcher.predict(detector, prepared[1], None, deadline))
            await asyncio.sleep(0)
            threading.Timer(0.1, gate.open).start()
            time.sleep(0.5)  # so that no timer of the event loop fires
            assert await problem(late) == "deadline-exceeded"
            await first
            assert batcher.images == 1

        run(scenario)

    def test_one_that_is_kept_changes_nothing(self, detector: Detector, prepared: list[Prepared]) -> None:
        async def scenario(batcher: Batcher) -> Batched:
            return await batcher.predict(detector, prepared[0], None, time.monotonic() + 60)

        assert run(scenario).batch_size == 1


class TestCancelled:
    def test_while_it_waits_it_leaves_the_queue(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        async def scenario(batcher: Batcher) -> None:
            jobs = [asyncio.create_task(batcher.predict(detector, p)) for p in prepared[:1]]
            await gate.wait_until_entered()
            jobs += [asyncio.create_task(batcher.predict(detector, p)) for p in prepared[1:5]]
            await until(lambda: batcher.pending == 5)
            for job in jobs[2:4]:
                job.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert batcher.pending == 3
            gate.open()
            results = await asyncio.gather(*jobs, return_exceptions=True)
            assert [isinstance(result, asyncio.CancelledError) for result in results] == [
                False,
                False,
                True,
                True,
                False,
            ]
            assert batcher.images == 3

        run(scenario)

    def test_while_it_is_computed_the_others_get_their_answers(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        async def scenario(batcher: Batcher) -> list[str]:
            with complaints(asyncio.get_running_loop()) as heard:
                jobs = [asyncio.create_task(batcher.predict(detector, p)) for p in prepared[:3]]
                await gate.wait_until_entered()
                jobs[0].cancel()
                await asyncio.gather(jobs[0], return_exceptions=True)
                gate.open()
                await asyncio.gather(*jobs[1:])
                await batcher.predict(detector, prepared[0])
            return heard

        assert run(scenario) == []

    @pytest.mark.parametrize("fails", [False, True])
    def test_at_the_moment_of_its_answer_nothing_is_left_behind(
        self, detector: Detector, prepared: list[Prepared], monkeypatch: pytest.MonkeyPatch, fails: bool
    ) -> None:
        if fails:
            monkeypatch.setattr(Scorer, "features", _explode)

        async def cancelled(batcher: Batcher) -> None:
            settle = batcher._settle

            def settle_and_cancel(answers: Any) -> None:
                settle(answers)
                job.cancel()  # its future is done, and the task has not run yet

            monkeypatch.setattr(batcher, "_settle", settle_and_cancel)
            job = asyncio.create_task(batcher.predict(detector, prepared[0]))
            [result] = await asyncio.gather(job, return_exceptions=True)
            assert isinstance(result, asyncio.CancelledError)

        async def scenario(batcher: Batcher) -> list[str]:
            with complaints(asyncio.get_running_loop()) as heard:
                await cancelled(batcher)
                monkeypatch.undo()
            return heard

        assert run(scenario) == []


def _explode(*_: object) -> list[Tensor]:
    raise RuntimeError("CUDA error: an illegal memory access")


class TestTiles:
    @pytest.fixture
    def tiled(self, detector: Detector) -> Detector:
        scorer = detector.scorer
        manifest = detector.manifest.model_copy(update={"category": "tiled", "geometry": TILE})
        cut = Scorer(scorer.extractor, scorer.head, scorer.input_size, scorer.rule, geometry=TILE)
        return Detector(manifest, detector.sha256, cut)

    @staticmethod
    def part(detector: Detector, side: int) -> Prepared:
        """A picture of the side, from which a square of 64 pixels makes one tile."""
        rng = np.random.default_rng(side)
        return detector.prepare(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))

    def test_share_a_pass_with_pictures_of_other_categories(
        self, detector: Detector, tiled: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        cut = self.part(tiled, 100)
        assert len(cut.layout) == 4

        async def scenario(batcher: Batcher) -> list[Batched]:
            images = ((tiled, cut), (detector, prepared[1]), (tiled, cut))
            calls = [batcher.predict(model, image) for model, image in images]
            rest = await let_wait(batcher, gate, batcher.predict(detector, prepared[0]), calls)
            results = await asyncio.gather(*rest)
            assert (batcher.batches, batcher.passes, batcher.images) == (2, 2, 4)
            return results

        results = run(scenario)
        assert [batched.batch_size for batched in results] == [3, 3, 3]
        for batched, model, image in zip(
            results, (tiled, detector, tiled), (cut, prepared[1], cut), strict=True
        ):
            [alone] = model.predict_prepared([image])
            assert batched.prediction.score == pytest.approx(alone.score, rel=1e-5)
            assert batched.prediction.score_map.shape == image.layout.size

    def test_count_as_so_many_images_of_a_batch(
        self, detector: Detector, tiled: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        cut = self.part(tiled, 100)

        async def scenario(batcher: Batcher) -> list[int]:
            calls = [batcher.predict(tiled, cut) for _ in range(3)]
            rest = await let_wait(batcher, gate, batcher.predict(detector, prepared[0]), calls)
            return [batched.batch_size for batched in await asyncio.gather(*rest)]

        assert run(scenario, max_batch=8) == [2, 2, 1]

    @pytest.mark.parametrize("fails", [False, True])
    def test_too_many_for_a_pass_are_computed_in_several(
        self, detector: Detector, tiled: Detector, prepared: list[Prepared], fails: bool, gate: Gate,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("flows.fastflow.scorer._CHUNK_PIXELS", 3 * 64 * 64)
        cut = self.part(tiled, 100)
        if fails:
            cut = replace(cut, pixels=cut.pixels.astype(np.float32))

        async def scenario(batcher: Batcher) -> list[Batched | BaseException]:
            calls = [batcher.predict(tiled, cut), batcher.predict(detector, prepared[1])]
            rest = await let_wait(batcher, gate, batcher.predict(detector, prepared[0]), calls)
            results = await asyncio.gather(*rest, return_exceptions=True)
            assert (batcher.batches, batcher.passes, batcher.images) == (2, 1 + 2 + 1, 3)
            return results

        large, small = run(scenario)
        assert isinstance(small, Batched)
        if fails:
            assert isinstance(large, ValueError)
        else:
            assert isinstance(large, Batched)
            [alone] = tiled.predict_prepared([cut])
            assert large.prediction.score == pytest.approx(alone.score, rel=1e-5)

    def test_make_the_wait_longer(
        self, detector: Detector, tiled: Detector, prepared: list[Prepared], gate: Gate,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        clock = _Clock(monkeypatch, gate)
        cut = self.part(tiled, 100)

        async def scenario(batcher: Batcher) -> None:
            await clock.batch(batcher, tiled, [cut], 0.4)  # four tiles
            running = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            assert batcher.expected_wait(1, "tiny") == pytest.approx(0.2)
            assert batcher.expected_wait(1, "tiled") == pytest.approx(0.5)
            waiting = [asyncio.create_task(batcher.predict(tiled, cut)) for _ in range(2)]
            await until(lambda: batcher.pending == 3)
            assert batcher.expected_wait(1, "tiled") == pytest.approx(1.3)
            gate.open()
            await asyncio.gather(running, *waiting)

        run(scenario, max_batch=4)


class TestFailures:
    def test_a_poisoned_image_fails_alone(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        other = of_category(detector, "other")
        poison = replace(prepared[3], pixels=prepared[3].pixels.astype(np.float32))

        async def scenario(batcher: Batcher) -> list[Batched | BaseException]:
            calls = [
                batcher.predict(detector, prepared[1]),
                batcher.predict(other, poison),
                batcher.predict(other, prepared[2]),
            ]
            rest = await let_wait(batcher, gate, batcher.predict(detector, prepared[0]), calls)
            results = await asyncio.gather(*rest, return_exceptions=True)
            assert (batcher.batches, batcher.passes) == (2, 1 + 1 + 3)
            return results

        good, poisoned, also_good = run(scenario)
        assert isinstance(poisoned, ValueError)
        assert "uint8" in str(poisoned)
        for result, image in ((good, prepared[1]), (also_good, prepared[2])):
            assert isinstance(result, Batched)
            [alone] = detector.predict_features(detector.scorer.features(image.tiles()))
            assert result.prediction.score == pytest.approx(alone.score, rel=1e-5)

    def test_a_failing_head_neither_repeats_the_backbone_nor_touches_other_categories(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        other = of_category(detector, "other")
        nothing = np.zeros((64, 64), np.bool_)  # a region without a pixel is refused by the head

        async def scenario(batcher: Batcher) -> list[Batched | BaseException]:
            calls = [
                batcher.predict(detector, prepared[1]),
                batcher.predict(other, prepared[2], nothing),
                batcher.predict(other, prepared[3]),
            ]
            rest = await let_wait(batcher, gate, batcher.predict(detector, prepared[0]), calls)
            results = await asyncio.gather(*rest, return_exceptions=True)
            assert (batcher.batches, batcher.passes) == (2, 2)
            return results

        good, refused, also_good = run(scenario)
        assert isinstance(good, Batched)
        assert isinstance(refused, ValueError)
        assert isinstance(also_good, Batched)
        [alone] = detector.predict_features(detector.scorer.features(prepared[3].tiles()))
        assert also_good.prediction.score == pytest.approx(alone.score, rel=1e-5)

    def test_images_tried_alone_keep_their_deadlines(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        poison = replace(prepared[0], pixels=prepared[0].pixels.astype(np.float32))

        async def scenario(batcher: Batcher) -> None:
            first = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            bad = asyncio.create_task(batcher.predict(detector, poison))
            brief = asyncio.create_task(batcher.predict(detector, prepared[1], None, time.monotonic() + 600))
            await until(lambda: batcher.pending == 3)
            gate.let_one_through()
            await first
            await gate.wait_until_entered()  # the batch of two, which will fail
            [job] = [job for job in batcher._running if job.deadline is not None]
            batcher._expire(job)  # as its timer does
            assert await problem(brief) == "deadline-exceeded"
            gate.open()
            with pytest.raises(ValueError, match="uint8"):
                await bad
            assert batcher.passes == 3  # the batch, and the poisoned image alone

        run(scenario)

    @pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), StopIteration(), GeneratorExit()])
    def test_nothing_ends_the_thread(
        self,
        detector: Detector,
        prepared: list[Prepared],
        error: BaseException,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def dies(*_: object) -> list[Tensor]:
            raise error

        async def scenario(batcher: Batcher) -> None:
            with monkeypatch.context() as patch:
                patch.setattr(Scorer, "features", dies)
                jobs = [asyncio.create_task(batcher.predict(detector, p)) for p in prepared[:4]]
                results = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 30)
            assert all(isinstance(result, RuntimeError) for result in results)
            assert (await batcher.predict(detector, prepared[0])).batch_size == 1

        run(scenario)

    def test_a_failure_of_the_queue_itself_is_answered_too(
        self, detector: Detector, prepared: list[Prepared], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object) -> None:
            raise MemoryError

        async def scenario(batcher: Batcher) -> None:
            with monkeypatch.context() as patch:
                patch.setattr("app.fair_queue.FairQueue.take", fails)
                with pytest.raises(MemoryError):
                    await asyncio.wait_for(batcher.predict(detector, prepared[0]), 30)
            assert (await batcher.predict(detector, prepared[0])).batch_size == 1

        run(scenario)


class TestDevice:
    """After a failure it is asked whether it still computes; on a CPU it always does."""

    @pytest.mark.parametrize("still", [True, False])
    def test_one_that_computes_no_more_is_told_for_good(
        self,
        detector: Detector,
        prepared: list[Prepared],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        still: bool,
    ) -> None:
        asked = []

        def computes(device: torch.device) -> bool:
            asked.append(device)
            return still

        monkeypatch.setattr(module, "computes", computes)

        async def scenario(batcher: Batcher) -> None:
            await batcher.predict(detector, prepared[0])
            assert not asked
            for _ in range(2):
                with monkeypatch.context() as patch:
                    patch.setattr(Scorer, "features", _explode)
                    with pytest.raises(RuntimeError):
                        await batcher.predict(detector, prepared[0])
            await batcher.predict(detector, prepared[0])
            if still:
                assert batcher.lost is None
                batcher.expect_alive()
                return
            assert batcher.lost == "cpu does not compute any more: the server must be restarted."
            with pytest.raises(Problem, match="must be restarted"):
                batcher.expect_alive()

        run(scenario)
        assert asked == [detector.device] * (2 if still else 1)
        assert caplog.text.count("does not compute any more") == (0 if still else 1)

    def test_a_cpu_computes(self) -> None:
        assert module.computes(torch.device("cpu"))

    def test_a_device_that_is_not_there_does_not(self, caplog: pytest.LogCaptureFixture) -> None:
        assert not module.computes(torch.device("cuda:99"))
        assert "cuda:99" in caplog.text


class TestHanging:
    def test_a_batch_that_does_not_end_is_told(
        self, detector: Detector, prepared: list[Prepared], gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def scenario(batcher: Batcher) -> None:
            waiting = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            batcher.expect_alive()
            with monkeypatch.context() as patch:
                patch.setattr(module, "_HANGS_SECONDS", 0.0)
                with pytest.raises(Problem, match="A batch takes"):
                    batcher.expect_alive()
            gate.open()
            await waiting
            batcher.expect_alive()

        run(scenario)

    def test_it_does_not_hold_up_the_end(
        self,
        detector: Detector,
        prepared: list[Prepared],
        gate: Gate,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.01)

        async def scenario(batcher: Batcher) -> None:
            waiting = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            batcher.close()
            assert "the batch that runs has not ended" in caplog.text
            gate.open()
            await waiting

        run(scenario)


class TestClosing:
    def test_answers_what_waits_and_finishes_what_runs(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        async def main() -> None:
            batcher = Batcher(16)
            first = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            waiting = [asyncio.create_task(batcher.predict(detector, p)) for p in prepared[1:4]]
            await until(lambda: batcher.pending == 4)
            closing = asyncio.create_task(asyncio.to_thread(batcher.close))
            assert [await problem(job) for job in waiting] == ["draining"] * 3
            gate.open()
            assert (await first).batch_size == 1
            await closing
            assert await problem(batcher.predict(detector, prepared[0])) == "draining"
            assert batcher.pending == 0
            batcher.close()

        before = set(threading.enumerate())
        asyncio.run(main())
        assert set(threading.enumerate()) <= before

    def test_in_the_event_loop_is_no_deadlock(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        async def main() -> None:
            batcher = Batcher(2)

            def go_on_when_closed() -> None:
                eventually(lambda: batcher._closed)
                gate.open()

            jobs = [asyncio.create_task(batcher.predict(detector, p)) for p in prepared]
            await gate.wait_until_entered()
            threading.Thread(target=go_on_when_closed).start()
            batcher.close()
            results = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 30)
            answered = [result for result in results if isinstance(result, Batched)]
            refused = [result for result in results if isinstance(result, Problem)]
            assert len(answered) + len(refused) == len(prepared)
            assert refused

        asyncio.run(main())

    def test_after_its_event_loop_is_no_failure(
        self, detector: Detector, prepared: list[Prepared], gate: Gate
    ) -> None:
        async def main() -> Batcher:
            batcher = Batcher(16)
            jobs = [asyncio.create_task(batcher.predict(detector, p)) for p in prepared[:2]]
            await gate.wait_until_entered()
            del jobs
            return batcher

        batcher = asyncio.run(main())
        gate.open()
        batcher.close()


def test_a_model_that_was_let_go_leaves_memory_although_nothing_follows(
    detector: Detector, prepared: list[Prepared]
) -> None:
    async def scenario(batcher: Batcher) -> None:
        mine = of_category(detector, "mine")
        gone = weakref.ref(mine)
        await batcher.predict(mine, prepared[0])
        del mine

        def let_go() -> bool:
            gc.collect()
            return gone() is None

        await until(let_go)  # the thread lets go of it some time after its answer

    run(scenario)


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="the system has no clock for a thread")
def test_waiting_for_work_costs_nothing() -> None:
    async def scenario(batcher: Batcher) -> float:
        assert batcher._thread.ident is not None
        clock = time.pthread_getcpuclockid(batcher._thread.ident)  # services of the session run in others
        start = time.clock_gettime(clock)
        await asyncio.sleep(0.3)
        return time.clock_gettime(clock) - start

    assert run(scenario) < 0.05


class TestExpectedWait:
    def test_is_nothing_when_idle_whatever_was_measured(
        self, detector: Detector, prepared: list[Prepared], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        features = Scorer.features

        def slow(scorer: Scorer, batch: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
            time.sleep(0.2)
            return features(scorer, batch)

        monkeypatch.setattr(Scorer, "features", slow)

        async def scenario(batcher: Batcher) -> None:
            assert batcher.expected_wait(100) == 0
            await batcher.predict(detector, prepared[0])
            assert batcher.expected_wait(100) == 0
            assert batcher.expected_wait(100, "tiny") == 0

        run(scenario)

    def test_grows_with_what_waits_and_spares_those_who_send_little(
        self, detector: Detector, prepared: list[Prepared], gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = _Clock(monkeypatch, gate)

        async def scenario(batcher: Batcher) -> None:
            await clock.batch(batcher, detector, prepared[:1], 0.1)
            running = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            assert batcher.expected_wait() == pytest.approx(0.2)
            assert batcher.expected_wait(3, "tiny") == pytest.approx(0.4)
            clock.now += 0.06
            assert batcher.expected_wait() == pytest.approx(0.14)
            clock.now += 0.04
            assert batcher.expected_wait() == pytest.approx(0.1)
            flood = [asyncio.create_task(batcher.predict(detector, prepared[0])) for _ in range(40)]
            await until(lambda: batcher.pending == 41)
            assert batcher.expected_wait(1, "tiny") == pytest.approx(4.1)
            assert batcher.expected_wait(1) == pytest.approx(4.1)
            assert batcher.expected_wait(1, "quiet") == pytest.approx(0.5)  # in the next batch of four
            assert batcher.expected_wait(1, "quiet", {"tiny": 60}) == pytest.approx(0.5)
            assert batcher.expected_wait(1, "tiny", {"tiny": 9}) == pytest.approx(5.0)
            assert batcher.expected_wait(1, "quiet", {"quiet": 4}) == pytest.approx(1.3)
            clock.now += 0.1  # it takes twice as long as was thought, and so will the next ones
            assert batcher.expected_wait(1, "tiny") == pytest.approx(8.2)
            clock.now += 100  # but not for ever
            assert batcher.expected_wait(1, "tiny") == pytest.approx(12.3)
            gate.open()
            await asyncio.gather(running, *flood)

        run(scenario, max_batch=4)

    def test_one_slow_batch_after_a_long_pause_is_outvoted(
        self, detector: Detector, prepared: list[Prepared], gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = _Clock(monkeypatch, gate)

        async def scenario(batcher: Batcher) -> None:
            await clock.batch(batcher, detector, prepared[:1], 30.0)  # the first one of a process
            for _ in range(3):
                await clock.batch(batcher, detector, prepared[:1], 0.1)
            clock.now += 8 * 3600
            await clock.batch(batcher, detector, prepared[:1], 5.0)
            running = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            assert batcher.expected_wait() == pytest.approx(0.2)
            gate.open()
            await running

        run(scenario)

    def test_follows_a_machine_that_has_become_slower(
        self, detector: Detector, prepared: list[Prepared], gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = _Clock(monkeypatch, gate)

        async def scenario(batcher: Batcher) -> None:
            for seconds in [0.1] * 20 + [0.4] * 5:
                await clock.batch(batcher, detector, prepared[:1], seconds)
            running = asyncio.create_task(batcher.predict(detector, prepared[0]))
            await gate.wait_until_entered()
            assert batcher.expected_wait() == pytest.approx(0.8)
            gate.open()
            await running

        run(scenario)


class _Clock:
    """The batcher's clock, which stands still unless a test moves it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
        self.now = 1000.0
        self._gate = gate
        monkeypatch.setattr("app.batcher.time", self)

    def monotonic(self) -> float:
        return self.now

    async def batch(
        self, batcher: Batcher, detector: Detector, prepared: Sequence[Prepared], seconds: float
    ) -> None:
        """Compute a batch that takes so long."""
        jobs = await at_once(batcher, [batcher.predict(detector, image) for image in prepared])
        await self._gate.wait_until_entered()
        self.now += seconds
        self._gate.let_one_through()
        await asyncio.gather(*jobs)
