"""Which models go first when there are too many; real ones, which share a backbone or do not."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.loader import Resident
from app.memory import Key, Memory, Refusal
from flows.fastflow import models_folder
from flows.fastflow.detector import Detector

HEAD = 1000  # what a head is said to weigh


@pytest.fixture(scope="module")
def detectors(tiny_bundle_store: Path) -> tuple[Detector, Detector]:
    """Two models with one backbone."""
    folder = models_folder.resolve(tiny_bundle_store, "tiny")
    first = Detector.load(folder, device="cpu")
    return first, Detector.load(folder, device="cpu", backbone=first.scorer.extractor)


@pytest.fixture(scope="module")
def other(tiny_bundle_store: Path) -> Detector:
    """One with a backbone of its own."""
    return Detector.load(models_folder.resolve(tiny_bundle_store, "tiny"), device="cpu")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


async def put(memory: Memory, key: Key, detector: Detector) -> None:
    """Keep a model as if it had just been loaded."""

    async def load() -> Resident | Refusal:
        return Resident(detector, HEAD)

    memory.put(key, task := asyncio.create_task(load()))
    await task


def names(memory: Memory) -> set[str]:
    return {model.category for model in memory.loaded()}


def room_for(heads: int, detector: Detector) -> int:
    return detector.scorer.backbone_nbytes + heads * HEAD


class TestBytes:
    def test_a_backbone_that_is_shared_counts_once(self, detectors: tuple[Detector, Detector]) -> None:
        async def scenario() -> None:
            memory = Memory(0)
            assert memory.nbytes == 0
            await put(memory, ("a", "1"), detectors[0])
            await put(memory, ("b", "1"), detectors[1])
            assert memory.nbytes == room_for(2, detectors[0])
            assert {model.nbytes for model in memory.loaded()} == {HEAD}
            memory.drop(("a", "1"))
            assert memory.nbytes == room_for(1, detectors[0])
            memory.drop(("b", "1"))
            assert memory.nbytes == 0

        run(scenario)

    def test_two_backbones_count_twice(self, detectors: tuple[Detector, Detector], other: Detector) -> None:
        async def scenario() -> None:
            memory = Memory(0)
            await put(memory, ("a", "1"), detectors[0])
            await put(memory, ("b", "1"), other)
            assert memory.nbytes == 2 * room_for(1, other)

        run(scenario)

    def test_what_is_loading_was_refused_or_cancelled_weighs_nothing(self) -> None:
        async def scenario() -> None:
            memory = Memory(0)
            go_on = asyncio.Event()

            async def load() -> Resident | Refusal:
                await go_on.wait()
                return Refusal("It is damaged.")

            loads = {("tiny", name): asyncio.create_task(load()) for name in ("a", "b")}
            for key, task in loads.items():
                memory.put(key, task)
            assert memory.result(("tiny", "a")) is None
            loads["tiny", "b"].cancel()
            await asyncio.sleep(0)
            assert memory.result(("tiny", "b")) is None
            go_on.set()
            assert await loads["tiny", "a"] == memory.result(("tiny", "a")) == Refusal("It is damaged.")
            memory.shrink()
            assert (memory.nbytes, memory.loaded()) == (0, [])
            assert memory.versions("tiny") == ["a", "b"]
            assert memory.versions("nut") == []

        run(scenario)


class TestShrink:
    def test_what_was_unused_for_longest_goes(self, detectors: tuple[Detector, Detector]) -> None:
        async def scenario() -> None:
            memory = Memory(room_for(2, detectors[0]))
            for name in "abcd":
                await put(memory, (name, "1"), detectors[0])
            for name in "cabd":
                memory.touch((name, "1"))
            memory.shrink()
            assert names(memory) == {"b", "d"}
            memory.shrink()
            assert names(memory) == {"b", "d"}

        run(scenario)

    def test_what_was_never_asked_for_goes_first_and_the_last_of_it_before_the_others(
        self, detectors: tuple[Detector, Detector]
    ) -> None:
        async def scenario() -> None:
            memory = Memory(room_for(3, detectors[0]))
            memory.touch(("asked", "1"))
            for name in ("asked", "x", "y", "z"):
                await put(memory, (name, "1"), detectors[0])
                memory.arrived((name, "1"))
                memory.shrink()
            # Preloading has displaced nothing: the one that came beyond the budget went itself.
            assert names(memory) == {"asked", "x", "y"}
            memory.budget = room_for(1, detectors[0])
            memory.shrink()
            assert names(memory) == {"asked"}

        run(scenario)

    def test_who_has_waited_for_a_load_wanted_it_until_it_came(
        self, detectors: tuple[Detector, Detector]
    ) -> None:
        """One whose load took long is not the one unused for longest."""

        async def scenario() -> None:
            memory = Memory(room_for(1, detectors[0]))
            memory.touch(("slow", "1"))
            await put(memory, ("quick", "1"), detectors[0])
            memory.touch(("quick", "1"))
            await put(memory, ("slow", "1"), detectors[1])
            memory.arrived(("slow", "1"))
            memory.shrink()
            assert names(memory) == {"slow"}

        run(scenario)

    def test_one_may_be_larger_than_the_budget(self, detectors: tuple[Detector, Detector]) -> None:
        async def scenario() -> None:
            memory = Memory(1)
            await put(memory, ("a", "1"), detectors[0])
            memory.shrink()
            assert names(memory) == {"a"}

        run(scenario)

    def test_dropping_the_last_of_a_backbone_frees_it(
        self, detectors: tuple[Detector, Detector], other: Detector
    ) -> None:
        async def scenario() -> None:
            memory = Memory(room_for(2, other))
            await put(memory, ("a", "1"), other)
            for name in "bc":
                await put(memory, (name, "1"), detectors[0])
            for name in "abc":
                memory.touch((name, "1"))
            memory.shrink()
            assert names(memory) == {"b", "c"}

        run(scenario)

    def test_a_load_that_runs_is_not_dropped(
        self, detectors: tuple[Detector, Detector], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")

        async def scenario() -> None:
            memory = Memory(1)
            running: asyncio.Task[Resident | Refusal] = asyncio.create_task(asyncio.sleep(60, Refusal("")))
            memory.put(("running", "1"), running)
            await put(memory, ("a", "1"), detectors[0])
            await put(memory, ("b", "1"), detectors[1])
            memory.touch(("b", "1"))
            memory.shrink()
            assert memory.get(("running", "1")) is running
            assert names(memory) == {"b"}
            running.cancel()

        run(scenario)
        assert [r.getMessage() for r in caplog.records if r.name == "flowgauge.memory"] == [
            "unloaded a/1 to keep to FLOWGAUGE_MODEL_BYTES=1"
        ]


def test_what_is_not_there_can_be_dropped(detectors: tuple[Detector, Detector]) -> None:
    async def scenario() -> None:
        memory = Memory(0)
        memory.drop(("a", "1"))
        memory.arrived(("a", "1"))
        assert memory.get(("a", "1")) is None
        assert memory.result(("a", "1")) is None
        assert memory.loaded() == []

    run(scenario)
