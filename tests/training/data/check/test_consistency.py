"""Odd sizes, colours and light, and sets without a usual value."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data.check.consistency import odd_colours, odd_light, odd_sizes
from training.data.check.findings import DataFinding
from training.data.check.image_statistics import ImageStatistics

USUAL = ImageStatistics(
    path=Path("0.png"),
    sha256="",
    size=(100, 200),
    bits=None,
    brightness=120,
    darkest=40,
    brightest=200,
    spread=30,
    colourfulness=12,
    thumbnail=np.zeros((64, 64), np.uint8),
    statistics=np.zeros(17, np.float32),
)


def named(images: list[ImageStatistics]) -> list[tuple[str, ImageStatistics]]:
    return [(str(i), image) for i, image in enumerate(images)]


def files(findings: list[DataFinding]) -> list[str]:
    return [name for finding in findings for name in finding.files]


def test_another_size_than_nearly_all_is_odd() -> None:
    images = [USUAL] * 9 + [replace(USUAL, size=(100, 201))]
    [finding] = odd_sizes(images, named(images))
    assert finding.message == "9 is 201x100, the rest 200x100"


def test_varying_sizes_allow_only_extreme_outliers() -> None:
    rng = np.random.default_rng(0)
    images = [replace(USUAL, size=(int(h), int(w))) for h, w in rng.integers(250, 400, (40, 2))]
    assert odd_sizes(images, named(images)) == []
    images += [
        replace(USUAL, size=(20, 30)),
        replace(USUAL, size=(90, 1200)),
        replace(USUAL, size=(260, 390)),
    ]
    odd = odd_sizes(images, named(images))
    assert files(odd) == ["40", "41"]
    assert "20" in odd[0].message
    assert "the rest vary around 3" in odd[0].message


@pytest.mark.parametrize(("usual", "other", "said"), [(12, 0.3, "grey"), (0.3, 12, "coloured")])
def test_grey_among_coloured_ones_and_the_reverse(usual: float, other: float, said: str) -> None:
    images = [replace(USUAL, colourfulness=usual)] * 9 + [replace(USUAL, colourfulness=other)]
    [finding] = odd_colours(images, named(images))
    assert finding.files == ["9"]
    assert finding.message.startswith(f"9 is {said}, the rest ")


def test_usual_variation_of_light_is_not_odd() -> None:
    alike = [replace(USUAL, brightness=120 + i / 10) for i in range(20)] + [replace(USUAL, brightness=140)]
    assert odd_light(alike, named(alike)) == []
    spread = [replace(USUAL, brightness=60 + 6 * i) for i in range(20)] + [replace(USUAL, brightness=30)]
    assert odd_light(spread, named(spread)) == []
    bright = [*alike[:20], replace(USUAL, brightness=150)]
    [finding] = odd_light(bright, named(bright))
    assert finding.message == "20 is brighter than the rest: mean 150 of 255, usually 121"
