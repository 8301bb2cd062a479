"""Area averages by two threads are those of OpenCV by one."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flows.fastflow import area

SIZES = [
    ((900, 900), (256, 256)),
    ((1080, 1920), (256, 256)),
    ((700, 701), (256, 255)),
    # Three bands: of which one thread takes one.
    ((768, 900), (249, 200)),
    # No bands, a whole ratio, a small picture, a large result.
    ((901, 900), (256, 256)),
    ((1024, 512), (256, 256)),
    ((300, 300), (256, 256)),
    ((900, 900), (384, 384)),
]


def noise(size: tuple[int, ...], kind: type[np.generic] = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, 256, size).astype(kind)


def expected(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_is_what_opencv_gives(
    before: tuple[int, int], after: tuple[int, int], channels: tuple[int, ...], kind: type[np.generic]
) -> None:
    image = noise((*before, *channels), kind)
    np.testing.assert_array_equal(area.average(image, after), expected(image, after))


def test_is_what_opencv_gives_at_many_sizes() -> None:
    random, divided = np.random.default_rng(1), 0
    for _ in range(60):
        bands, (a, b, c, d) = int(random.integers(2, 16)), random.integers(2, 17, 4).tolist()
        after = bands * a, 8 * b
        before = after[0] + bands * 3 * c, after[1] + 40 * d
        image = noise((*before, 3))
        np.testing.assert_array_equal(area.average(image, after), expected(image, after))
        divided += before[0] * before[1] >= 2**17
    assert divided > 10


def test_a_view_of_a_larger_picture_is_taken() -> None:
    image = noise((1000, 1000, 3))[50:950, 50:950]
    np.testing.assert_array_equal(area.average(image, (256, 256)), expected(image, (256, 256)))


def test_nobody_waits_for_helpers_that_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise((900, 900, 3))
    go_on = Event()
    with ThreadPoolExecutor(1) as helpers:
        helpers.submit(go_on.wait)
        monkeypatch.setattr(area, "_helpers", helpers)
        found = area.average(image, (256, 256))
        go_on.set()
    np.testing.assert_array_equal(found, expected(image, (256, 256)))


def test_a_kind_that_opencv_does_not_reduce_is_refused() -> None:
    with pytest.raises(cv2.error):
        area.average(noise((900, 900)).astype(np.int64), (256, 256))
