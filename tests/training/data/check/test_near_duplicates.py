"""Near-duplicates: against distances computed one by one, with few or equal neighbours."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.check import near_duplicates
from training.data.check.near_duplicates import LIMIT, nearest_in_training, neighbours


def thumbnails(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16), dtype=np.uint8)


def nearly(image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 2, image.shape)
    return np.asarray((image * 0.9 + 10 + noise).clip(0, 255), dtype=np.uint8)


def test_distances_are_those_of_images_without_mean_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    # In several blocks, of which the last is not full.
    monkeypatch.setattr(near_duplicates, "_ROWS", 7)
    monkeypatch.setattr(near_duplicates, "_COLUMNS", 9)
    images = thumbnails(25)
    flat = images.reshape(25, -1).astype(np.float64)
    flat = (flat - flat.mean(1, keepdims=True)) / (flat.std(1, keepdims=True) + 2)
    distances = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(2))
    np.fill_diagonal(distances, np.inf)
    found = neighbours(images)
    np.testing.assert_allclose(found.fifth, np.sort(distances, 1)[:, 4], rtol=1e-4)
    np.testing.assert_allclose(found.usual, found.fifth)
    assert found.pairs == []


def test_pair_is_found_once_with_its_ratio() -> None:
    images = thumbnails(40)
    images[31] = nearly(images[4], 1)
    [(i, j, ratio)] = neighbours(images).pairs
    assert (i, j) == (4, 31)
    assert 0 < ratio < LIMIT


def test_equal_images_are_paired_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # A camera that froze twice, between other images: its millions of pairs would fill the memory.
    monkeypatch.setattr(near_duplicates, "_ROWS", 4)
    images = thumbnails(40)
    frozen, dark = [3, 5, 6, 20, 39], [8, 9, 21]
    images[frozen], images[dark] = images[3], images[8]
    pairs = neighbours(images).pairs
    assert sorted(pairs) == sorted([*((3, i, 0.0) for i in frozen[1:]), *((8, i, 0.0) for i in dark[1:])])
    assert len(neighbours(np.repeat(images[:1], 6, axis=0)).pairs) == 5


def test_each_test_image_is_told_its_closest_training_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_ROWS", 2)
    train = thumbnails(30)
    test = np.stack([nearly(train[7], 1), thumbnails(1, seed=9)[0], train[22]])
    index, ratio = nearest_in_training(test, train, neighbours(train).usual)
    assert index[0] == 7
    assert index[2] == 22
    assert ratio[0] < LIMIT
    assert ratio[1] > 0.5
    assert ratio[2] == 0


@pytest.mark.parametrize(("noise", "near"), [(8, True), (30, False)])
def test_limit_is_a_seventh_of_the_usual_distance(noise: float, near: bool) -> None:
    images = thumbnails(40)
    images[1] = (images[0] + np.random.default_rng(1).normal(0, noise, (16, 16))).clip(0, 255)
    assert bool(neighbours(images).pairs) == near
    _, ratio = nearest_in_training(images[1:2], images[:1], neighbours(images).usual[:1])
    assert (ratio[0] <= LIMIT) == near
