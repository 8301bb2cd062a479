"""Augmentation: allowed changes, drawn once by seed and content."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.config.augmentation import AugmentConfig
from training.data.augment import AugmentError, Variant, variants

HASH = "5f" * 32


def image(height: int = 6, width: int = 6) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def drawn(sha256: str = HASH, seed: int = 0, **settings: Any) -> list[Variant]:
    return variants(AugmentConfig.model_validate(settings), sha256, seed)


def test_nothing_is_allowed_by_default() -> None:
    assert drawn() == drawn(copies=9) == []
    assert not AugmentConfig().active


def test_mirror_is_a_mirror() -> None:
    x = image(5, 8)
    [horizontal] = drawn(hflip=True)
    np.testing.assert_array_equal(horizontal.apply(x), x[:, ::-1])
    [vertical] = drawn(vflip=True)
    np.testing.assert_array_equal(vertical.apply(x), x[::-1])


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"hflip": True}, 2),
        ({"hflip": True, "vflip": True}, 4),
        ({"right_angles": True}, 4),
        ({"right_angles": True, "vflip": True}, 8),
        ({"right_angles": True, "hflip": True, "vflip": True}, 8),
    ],
)
def test_mirrors_and_right_angles_are_drawn_without_repetition(settings: dict[str, Any], kinds: int) -> None:
    x = image()
    made = [x, *(variant.apply(x) for variant in drawn(copies=64, **settings))]
    assert len(made) == kinds
    assert len({one.tobytes() for one in made}) == kinds
    for once in (x[:, ::-1],) if "hflip" in settings else ():
        assert once.tobytes() in {one.tobytes() for one in made}


def test_right_angles_turn_and_do_not_mirror() -> None:
    x = image()
    made = {variant.apply(x).tobytes() for variant in drawn(right_angles=True)}
    assert made == {np.rot90(x, k).tobytes() for k in (1, 2, 3)}


def test_right_angle_of_non_square_image_is_refused() -> None:
    with pytest.raises(AugmentError, match=r"needs square images; this one is 8x5.*hflip and augment\.vflip"):
        Variant(quarter_turns=3).apply(image(5, 8))
    np.testing.assert_array_equal(Variant(quarter_turns=2).apply(image(5, 8)), image(5, 8)[::-1, ::-1])


def test_small_turn_is_about_the_centre_and_counter_clockwise() -> None:
    x = np.zeros((41, 41, 3), np.uint8)
    x[20, 32:36] = 255  # right of the centre
    turned = Variant(degrees=30).apply(x)
    rows, columns = np.nonzero(turned[..., 0] > 60)
    angle = np.degrees(np.arctan2(20 - rows.mean(), columns.mean() - 20))
    assert angle == pytest.approx(30, abs=3)


def test_brightness_adds_and_contrast_stretches_about_the_mean() -> None:
    x = np.full((4, 4, 3), 100, np.uint8)
    x[:2] = 140
    assert set(Variant(brightness=0.1).apply(x).flat) == {126, 166}  # 25.5 more, rounded to even
    assert set(Variant(contrast=1.5).apply(x).flat) == {90, 150}
    assert set(Variant(contrast=0.5).apply(x).flat) == {110, 130}


def test_they_depend_on_seed_and_content_alone() -> None:
    first, again = (drawn(hflip=True, degrees=5, copies=4) for _ in range(2))
    assert first == again
    assert drawn(seed=1, hflip=True, degrees=5, copies=4) != first
    assert drawn("0" * 64, hflip=True, degrees=5, copies=4) != first
