"""The input size that `geometry.fit: auto` chooses from the sizes of images."""

import pytest

from flows.fastflow.config import Geometry
from training.config.geometry_config import GeometryConfig, choose_batch_size, choose_input

Sizes = list[tuple[int, int]]


@pytest.mark.parametrize(
    ("sizes", "max_tiles", "chosen"),
    [
        ([(300, 300)] * 9, 4, (256, 256)),
        ([(512, 512)] * 9, 4, (256, 256)),
        ([(144, 360)] * 9, 4, (256, 256)),
        ([(480, 640)] * 9, 4, (256, 320)),
        ([(700, 700)] * 9, 4, (352, 352)),
        ([(1024, 1024)] * 9, 4, (512, 512)),
        ([(1024, 1024)] * 9, 2, (352, 352)),
        ([(1024, 1024)] * 9, 1, (256, 256)),
        ([(4000, 4000)] * 9, 4, (512, 512)),
        ([(4000, 4000)] * 9, 32, (1440, 1440)),
        ([(1250, 500)] * 9, 4, (608, 256)),
        ([(1250, 500)] * 9, 1, (256, 256)),
        ([(400, 4000)] * 9, 4, (256, 1024)),
        ([(60, 40_000)] * 9, 32, (256, 4096)),
        ([(200, 600), (600, 200), (300, 300)] * 9, 4, (256, 256)),
        ([(1250, 500)] * 9 + [(500, 9000)] * 4, 4, (608, 256)),  # a few odd images decide nothing
    ],
)
def test_input_follows_sizes_of_the_images(sizes: Sizes, max_tiles: int, chosen: tuple[int, int]) -> None:
    assert choose_input(sizes, max_tiles).input_size == chosen


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((512, 512), "images of 512 x 512 pixels are stretched to 256 x 256"),
        (
            (500, 1250),
            "images of 500 x 1250 pixels are stretched to 256 x 608, half of each larger side; inference "
            "takes about 2.4 times as long as with 256 x 256",
        ),
        (
            (2048, 2048),
            "images of 2048 x 2048 pixels are stretched to 512 x 512, the most that geometry.max_tiles: 4 "
            "allows; inference takes about 4.0 times as long as with 256 x 256",
        ),
    ],
)
def test_reason_names_sizes_and_cost(size: tuple[int, int], reason: str) -> None:
    assert choose_input([size] * 3, 4).reason == reason


@pytest.mark.parametrize(
    ("size", "images"), [((128, 128), 8), ((256, 256), 8), ((336, 336), 5), ((512, 512), 2), ((800, 800), 1)]
)
def test_larger_inputs_have_fewer_images_an_update(size: tuple[int, int], images: int) -> None:
    assert choose_batch_size(size) == images


def test_auto_is_recorded_as_stretch() -> None:
    assert GeometryConfig(margin=8).resolved() == Geometry(fit="stretch", margin=8)
    assert GeometryConfig(fit="tile", scale=0.5).resolved() == Geometry(fit="tile", scale=0.5)
