import asyncio
import hashlib
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from app.inference import Decoded, Inference, Pixels
from app.problems import Problem, ProblemName
from app.turns import Timed
from flows.fastflow import images
from flows.fastflow.geometry import Geometry, Prepared

Images = dict[str, list[bytes]]


@pytest.fixture
def inference() -> Iterator[Inference]:
    inference = Inference(images.Limits(max_bytes=200_000, max_pixels=100_000), decode_threads=2)
    yield inference
    inference.close()


def halve(pixels: Pixels) -> Prepared:
    """What a model might take."""
    size = pixels.shape[0] // 2, pixels.shape[1] // 2
    return Geometry().layout(pixels.shape[:2], size, (1,)).prepare(pixels)


def test_decodes(inference: Inference, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    pixels = images.decode(data)
    decoded = asyncio.run(inference.decode("tiny", data, halve, keep_pixels=True)).value
    assert decoded.pixels is not None
    np.testing.assert_array_equal(decoded.pixels, pixels)
    np.testing.assert_array_equal(decoded.prepared.pixels, halve(pixels).pixels)
    assert decoded.size == pixels.shape[:2]
    assert decoded.sha256 == hashlib.sha256(data).hexdigest()
    assert decoded.nbytes == decoded.pixels.nbytes + decoded.prepared.nbytes


def test_keeps_the_pixels_only_when_asked(inference: Inference, tiny_images: Images) -> None:
    decoded = asyncio.run(inference.decode("tiny", tiny_images["good"][0], halve)).value
    assert decoded.pixels is None
    assert decoded.nbytes == decoded.prepared.nbytes


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "unsupported-media-type"),
        (b"plain text", "unsupported-media-type"),
        (b"GIF89a" + bytes(50), "unsupported-media-type"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "undecodable-image"),
        (bytes(200_001), "too-large"),
    ],
)
def test_refuses_what_is_no_image(inference: Inference, data: bytes, name: ProblemName) -> None:
    with pytest.raises(Problem) as caught:
        asyncio.run(inference.decode("tiny", data, halve))
    assert caught.value.name == name
    assert caught.value.detail


def test_a_truncated_image_is_undecodable(inference: Inference, tiny_images: Images) -> None:
    data = tiny_images["good"][0]
    with pytest.raises(Problem) as caught:
        asyncio.run(inference.decode("tiny", data[: len(data) // 2], halve))
    assert caught.value.name == "undecodable-image"


def test_the_event_loop_goes_on_while_a_thread_works(inference: Inference) -> None:
    release = threading.Event()

    async def scenario() -> None:
        job = asyncio.ensure_future(inference.draw("tiny", release.wait, 60))
        try:
            for _ in range(10):
                await asyncio.sleep(0.01)
                assert not job.done()
        finally:
            release.set()
        assert (await job).value

    asyncio.run(scenario())


def test_a_cancelled_job_is_not_computed(inference: Inference) -> None:
    release = threading.Event()
    computed: list[str] = []

    async def scenario() -> None:
        running = [asyncio.ensure_future(inference.draw("tiny", release.wait)) for _ in range(2)]
        waiting = asyncio.ensure_future(inference.draw("tiny", computed.append, "cancelled"))
        last = asyncio.ensure_future(inference.draw("tiny", computed.append, "last"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.sleep(0.05)
        release.set()
        await asyncio.gather(*running, last)

    asyncio.run(scenario())
    assert computed == ["last"]


class TestTurns:
    """One thread that decodes; it is held until all that is to wait does."""

    @pytest.fixture
    def inference(self) -> Iterator[Inference]:
        inference = Inference(images.Limits(), decode_threads=1)
        yield inference
        inference.close()

    @staticmethod
    def decoded(
        inference: Inference, data: bytes, names: list[str], cancelled: str = "", closes: bool = False
    ) -> list[str]:
        """The order in which pictures, called by their category and a number, are decoded."""
        begun, release, order = threading.Event(), threading.Event(), list[str]()

        def take(name: str) -> Callable[[Pixels], Prepared]:
            def prepare(pixels: Pixels) -> Prepared:
                begun.set()
                assert release.wait(60)
                order.append(name)
                return halve(pixels)

            return prepare

        async def scenario() -> None:
            def sent(name: str) -> asyncio.Future[Timed[Decoded]]:
                return asyncio.ensure_future(inference.decode(name[0], data, take(name)))

            jobs = [sent(names[0])]
            assert await asyncio.to_thread(begun.wait, 60)
            jobs += map(sent, names[1:])
            await asyncio.sleep(0)  # in which all are given to the thread
            for name, job in zip(names, jobs, strict=True):
                if name == cancelled:
                    job.cancel()
            # What is drawn waits for none of them.
            assert (await inference.draw("tiny", lambda: "drawn")).value == "drawn"
            await asyncio.sleep(0)
            if closes:
                threading.Timer(0.05, release.set).start()
                inference.close()
            release.set()
            await asyncio.gather(*jobs, return_exceptions=True)

        asyncio.run(scenario())
        return order

    def test_a_category_waits_for_one_picture_of_each_other(
        self, inference: Inference, tiny_images: Images
    ) -> None:
        names = ["a1", "a2", "a3", "a4", "b1", "c1"]
        assert self.decoded(inference, tiny_images["good"][0], names) == ["a1", "b1", "c1", "a2", "a3", "a4"]

    def test_what_is_drawn_waits_for_one_picture_of_each_other_category(self, inference: Inference) -> None:
        """A rejected part's regions are found there, behind nobody's overlays but one."""
        begun, release, order = threading.Event(), threading.Event(), list[str]()

        def held() -> None:
            begun.set()
            assert release.wait(60)

        async def scenario() -> None:
            first = asyncio.ensure_future(inference.draw("a", held))
            assert await asyncio.to_thread(begun.wait, 60)
            names = ["a1", "a2", "a3", "b1", "c1"]
            jobs = [asyncio.ensure_future(inference.draw(name[0], order.append, name)) for name in names]
            await asyncio.sleep(0)  # in which all are given to the thread
            release.set()
            await asyncio.gather(first, *jobs)

        asyncio.run(scenario())
        assert order == ["b1", "c1", "a1", "a2", "a3"]  # its first was drawn all the while

    def test_one_that_nobody_waits_for_takes_no_turn_and_leaves_none_behind(
        self, inference: Inference, tiny_images: Images
    ) -> None:
        names = ["a1", "a2", "b1", "b2"]
        data = tiny_images["good"][0]
        assert self.decoded(inference, data, names, cancelled="a2") == ["a1", "b1", "b2"]

    def test_the_end_leaves_nobody_waiting(self, inference: Inference, tiny_images: Images) -> None:
        assert self.decoded(inference, tiny_images["good"][0], ["a1", "a2", "b1"], closes=True) == ["a1"]


def test_times_the_wait_and_the_work_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    inference = Inference(images.Limits(), decode_threads=1)
    now, both = 0.0, threading.Event()
    monkeypatch.setattr("app.turns.time", SimpleNamespace(perf_counter=lambda: now))

    def work(seconds: float) -> None:
        nonlocal now
        assert both.wait(60)
        now += seconds

    async def two() -> list[tuple[float, float]]:
        jobs = [asyncio.ensure_future(inference.draw("tiny", work, seconds)) for seconds in (3.0, 5.0)]
        await asyncio.sleep(0)  # in which both are given to the thread
        both.set()
        return [(timed.waited, timed.took) for timed in await asyncio.gather(*jobs)]

    first, second = asyncio.run(two())
    inference.close()
    assert first == (0, 3)
    assert second == (3, 5)
