"""The input size that `geometry.fit: auto` chooses from the sizes of images."""

import pytest

from flows.fastflow.config import Geometry
from training.config.geometry_config import GeometryConfig, choose_input

Sizes = list[tuple[int, int]]


@pytest.mark.parametrize(
    ("sizes", "max_tiles", "chosen"),
    [
        ([(300, 300)] * 9, 4, (256, 256)),
        ([(512, 512)] * 9, 4, (256, 256)),
        ([(480, 640)] * 9, 4, (256, 256)),  # 4 : 3 is close to a square
        ([(1024, 1024)] * 9, 4, (512, 512)),
        ([(1024, 1024)] * 9, 2, (352, 352)),
        ([(1024, 1024)] * 9, 1, (256, 256)),
        ([(700, 700)] * 9, 4, (352, 352)),
        ([(4000, 5000)] * 9, 4, (512, 512)),
        ([(144, 360)] * 9, 4, (160, 416)),
        ([(1250, 500)] * 9, 4, (640, 256)),
        ([(400, 4000)] * 9, 4, (160, 1600)),
        ([(60, 4000)] * 9, 4, (32, 2112)),
        ([(200, 500), (500, 200), (300, 300)] * 9, 4, (256, 256)),  # no common aspect ratio
        ([(2000, 5000), (5000, 2000), (3000, 3000)] * 9, 4, (512, 512)),
        ([(1250, 500)] * 19 + [(500, 1250)], 4, (640, 256)),  # one odd image decides nothing
    ],
)
def test_input_follows_sizes_of_the_images(sizes: Sizes, max_tiles: int, chosen: tuple[int, int]) -> None:
    assert choose_input(sizes, max_tiles).input_size == chosen


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ([(512, 512)], "images of 512 x 512 pixels are stretched to 256 x 256, the usual input"),
        (
            [(1024, 1024)],
            "images of 1024 x 1024 pixels are stretched to 512 x 512: a square, half their resolution, "
            "within geometry.max_tiles: 4; 4.0 times the time of 256 x 256",
        ),
        (
            [(144, 360)],
            "images of 144 x 360 pixels are stretched to 160 x 416: their aspect ratio, as many pixels as "
            "256 x 256; 1.0 times the time of 256 x 256",
        ),
        (
            [(2000, 5000), (5000, 2000)],
            "images of about 3500 x 3500 pixels, width by height 0.61 to 2.29, are stretched to 512 x 512: a "
            "square, as many pixels as geometry.max_tiles: 4 allows; 4.0 times the time of 256 x 256",
        ),
    ],
)
def test_reason_names_sizes_and_cost(sizes: Sizes, reason: str) -> None:
    assert choose_input(sizes, 4).reason == reason


def test_auto_is_recorded_as_stretch() -> None:
    assert GeometryConfig(margin=8).resolved() == Geometry(fit="stretch", margin=8)
    assert GeometryConfig(fit="tile", scale=0.5).resolved() == Geometry(fit="tile", scale=0.5)
