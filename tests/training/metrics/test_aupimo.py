"""AUPIMO: by its plain definition, by hand, and refused where good pixels are too few."""

import math

import numpy as np
import pytest

from tests.training.metrics.maps import made_up, plain_aupimo
from training.metrics.aupimo import aupimo
from training.metrics.errors import MetricError
from training.metrics.pixels import pixel_figures
from training.metrics.sorted_runs import SortedRuns


@pytest.mark.parametrize("decimals", [None, 2])
def test_it_is_its_definition(decimals: int | None) -> None:
    maps, masks = made_up(0, pictures=6, size=192, decimals=decimals, tail=1.0)
    found = pixel_figures(maps, masks).aupimo_per_picture
    assert found is not None
    assert found == pytest.approx(plain_aupimo(maps, masks, 1e-5, 1e-4), abs=1e-9)
    assert pixel_figures(maps, masks).aupimo == pytest.approx(found.mean())


def test_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = made_up(1, pictures=6, size=192)
    whole = pixel_figures(maps, masks).aupimo_per_picture
    monkeypatch.setattr("training.metrics.sorted_runs.CHUNK", 256)
    parts = pixel_figures(maps, masks).aupimo_per_picture
    assert whole is not None
    assert parts == pytest.approx(whole, abs=1e-12)


def test_by_hand() -> None:
    """100 good pixels of scores 0 ... 99; rates 0.01 ... 0.1 are reached at 99 ... 90."""
    with SortedRuns() as good, SortedRuns(weighted=True) as defective:
        good.append(np.arange(100, dtype=np.float32))
        # One pixel above all good ones, one just above the fifth highest (95), two below all that counts.
        defective.append(np.array([200, 95.5, 3, 3], dtype=np.float32), np.full(4, 0.25))
        [area] = aupimo(good, np.array([100]), defective, (0.01, 0.1))
    wanted = (math.log(0.04 / 0.01) * 0.25 + math.log(0.1 / 0.04) * 0.5) / math.log(10)
    assert area == pytest.approx(wanted)


def test_rates_are_means_over_good_pictures_of_unlike_sizes() -> None:
    """The score 10 is a tenth of a small picture: 0.05 of the two, though only 1 pixel in 110."""
    with SortedRuns() as good, SortedRuns(weighted=True) as defective:
        good.append(np.array([10, 0, 0, 0, 0, 0, 0, 0, 0, 0], dtype=np.float32))
        good.append(np.append(np.full(99, 0), 20).astype(np.float32))
        defective.append(np.array([15, 5], dtype=np.float32), np.full(2, 0.5))
        # Rates: 0.005 at 20, 0.055 at 10; between them the defect at 15 is seen.
        [area] = aupimo(good, np.array([10, 100]), defective, (0.005, 0.055))
    assert area == pytest.approx(0.5)


def test_good_pixels_are_needed_in_number() -> None:
    maps, masks = made_up(2, pictures=2, size=32)
    with SortedRuns() as good, SortedRuns(weighted=True) as defective:
        good.append(maps[0].ravel())
        defective.append(maps[1][masks[1]], np.ones(int(masks[1].sum())))
        with pytest.raises(MetricError, match=r"1,024 pixels in 1 good pictures are too few"):
            aupimo(good, np.array([1024]), defective)


def test_a_lower_end_below_one_pixel_is_refused() -> None:
    """100 good pixels have a rate of 0.01; the nearest to 0.001 is 0, which has no logarithm."""
    with SortedRuns() as good, SortedRuns(weighted=True) as defective:
        good.append(np.arange(100, dtype=np.float32))
        defective.append(np.array([200, 3], dtype=np.float32), np.full(2, 0.5))
        with pytest.raises(MetricError, match=r"100 pixels in 1 good pictures are too few"):
            aupimo(good, np.array([100]), defective, (0.001, 0.1))


@pytest.mark.parametrize(
    ("pixels", "enough"), [(50_176, False), (99_999, False), (100_000, True), (131_072, True)]
)
def test_a_lower_end_above_its_bound_is_refused(pixels: int, enough: bool) -> None:
    """From 2e-5 on, a map that shows all of a defect above all good pixels would have no more than 0.7."""
    with SortedRuns() as good, SortedRuns(weighted=True) as defective:
        good.append(np.arange(pixels, dtype=np.float32))
        defective.append(np.array([1e6], dtype=np.float32), np.ones(1))
        if enough:
            assert aupimo(good, np.array([pixels]), defective)[0] > 0.85
        else:
            with pytest.raises(MetricError, match=r"pixels in 1 good pictures are too few"):
                aupimo(good, np.array([pixels]), defective)


def test_so_is_one_that_ties_put_there() -> None:
    with SortedRuns() as good, SortedRuns(weighted=True) as defective:
        good.append(np.minimum(np.arange(200_000), 199_996).astype(np.float32))  # the highest four alike
        defective.append(np.array([1e6], dtype=np.float32), np.ones(1))
        with pytest.raises(MetricError, match=r"2e-05 of them have the highest score"):
            aupimo(good, np.array([200_000]), defective)


def test_both_kinds_of_pictures_are_needed() -> None:
    with SortedRuns() as good, SortedRuns(weighted=True) as defective:
        with pytest.raises(MetricError, match="needs good pictures"):
            aupimo(good, np.array([], dtype=np.int64), defective)
        good.append(np.zeros(4, dtype=np.float32))
        with pytest.raises(MetricError, match="and defective ones"):
            aupimo(good, np.array([4]), defective)
