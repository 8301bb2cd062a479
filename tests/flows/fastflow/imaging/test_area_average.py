"""Area averages by two threads are those of OpenCV by one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flows.fastflow.imaging import area_average

DIVIDED = [
    ((900, 900), (256, 256)),
    ((1080, 1920), (256, 256)),
    ((700, 701), (256, 255)),
    ((900, 900), (312, 312)),
    # Three bands: of which one thread takes one.
    ((768, 900), (249, 200)),
]
# No bands, a whole ratio, a small image, a large result.
WHOLE = [
    ((901, 900), (256, 256)),
    ((1024, 512), (256, 256)),
    ((300, 300), (256, 256)),
    ((900, 900), (384, 384)),
]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    yield
    cv2.setNumThreads(before)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    heights: list[int] = []
    resize = area_average._resize

    def recording(image: NDArray[Any], found: NDArray[Any]) -> None:
        heights.append(len(found))
        resize(image, found)

    monkeypatch.setattr(area_average, "_resize", recording)
    return heights


def noise(size: tuple[int, ...], kind: type[np.generic] = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, size).astype(kind)


def expected(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(("before", "after"), DIVIDED + WHOLE)
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_is_what_opencv_gives(
    before: tuple[int, int], after: tuple[int, int], channels: tuple[int, ...], kind: type[np.generic]
) -> None:
    image = noise((*before, *channels), kind)
    np.testing.assert_array_equal(area_average.area_average(image, after), expected(image, after))


@pytest.mark.parametrize(("before", "after"), DIVIDED + WHOLE)
@pytest.mark.parametrize("threads", [1, 2])
def test_two_threads_share_it_where_it_pays(
    before: tuple[int, int], after: tuple[int, int], threads: int, parts: list[int]
) -> None:
    cv2.setNumThreads(threads)
    area_average.area_average(noise((*before, 3)), after)
    assert sum(parts) == after[0]
    assert len(parts) == (2 if threads == 2 and (before, after) in DIVIDED else 1)


def test_nobody_waits_for_helpers_that_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise((900, 900, 3))
    go_on = Event()
    with ThreadPoolExecutor(1) as helpers:
        busy = helpers.submit(go_on.wait, 60)
        monkeypatch.setattr(area_average, "_helpers", helpers)
        found = area_average.area_average(image, (256, 256))
        assert not busy.done()
        go_on.set()
    np.testing.assert_array_equal(found, expected(image, (256, 256)))
