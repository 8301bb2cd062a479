"""The split: disjoint, complete, seeded, without copies or parts on both sides."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flows.fastflow.calibration.conformal import compute_threshold, good_images_for
from training.config.run_config import CalibrationConfig
from training.data.sample import DatasetError
from training.data.split import Split, describe_shortage, split, without_copies


@pytest.mark.parametrize("count", [4, 10, 32, 209, 1131])
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.3, 0.5])
def test_parts_are_disjoint_and_complete(count: int, fraction: float) -> None:
    for seed in range(3):
        parts = split(count, fraction, seed)
        assert sorted([*parts.fit, *parts.calibration]) == list(range(count))
        assert len(parts.calibration) == max(1, round(fraction * count))


def test_it_is_by_seed_and_by_nothing_else() -> None:
    drawn = {tuple(split(40, 0.25, seed).calibration) for seed in range(20)}
    assert len(drawn) == 20
    np.random.default_rng(0).random()
    torch.rand(3)
    assert tuple(split(40, 0.25, 0).calibration) == tuple(split(40, 0.25, 0).calibration)


@pytest.mark.parametrize(("count", "fraction", "held_out"), [(1, 0.2, 1), (2, 0.2, 1), (10, 0.9, 9)])
def test_too_few_images_are_told(count: int, fraction: float, held_out: int) -> None:
    with pytest.raises(DatasetError, match=f"{count} good images are too few: .* {held_out} to calib"):
        split(count, fraction, 0)


@pytest.mark.parametrize(
    ("count", "fraction", "taken"), [(10, 0.2, 2), (10, 0.01, 1), (4, 0.2, 1), (9, 0.5, 4)]
)
def test_validation_rows_come_from_those_to_fit(count: int, fraction: float, taken: int) -> None:
    whole = Split(np.arange(100, 100 + count), np.arange(5))
    parts = whole.with_validation(fraction, 0)
    assert len(parts.validation) == taken
    assert sorted([*parts.fit, *parts.validation]) == whole.fit.tolist()
    assert parts.calibration.tolist() == whole.calibration.tolist()
    assert (np.diff(parts.fit) > 0).all()
    assert (np.diff(parts.validation) > 0).all()
    assert parts.seen.tolist() == whole.seen.tolist() == whole.fit.tolist()


def test_their_draw_is_not_that_of_the_calibration() -> None:
    for seed in range(5):
        parts = split(50, 0.2, seed)
        again = parts.fit[split(len(parts.fit), 0.2, seed).calibration]
        assert parts.with_validation(0.2, seed).validation.tolist() != again.tolist()


def test_of_copies_the_first_is_kept_and_the_order_too() -> None:
    paths = [Path(name) for name in "abcdef"]
    kept, hashes = without_copies(paths, ["1", "2", "1", "3", "2", "1"])
    assert kept == [Path("a"), Path("b"), Path("d")]
    assert hashes == ["1", "2", "3"]


def test_parts_are_split_whole_with_one_calibration_image() -> None:
    shown = np.array([0, 1, 0, 2, 1, 3, 4, 4, 3])
    drawn = np.array([2, 3, 4, 5, 6])
    divided = Split(np.array([0, 2]), np.array([1, 3]), np.array([4]))
    images = divided.of_images(shown, drawn)
    assert images.fit.tolist() == [0, 2, 3]
    assert images.calibration.tolist() == [4, 5]
    assert images.validation.tolist() == [6, 7]


@pytest.mark.parametrize(
    ("asked", "needed"), [(0.1, 9), (0.01, 99), (0.001, 999), (0.03, 33), (0.5, 1), (1 / 49, 48)]
)
def test_needed_images_agree_with_conformal_prediction(asked: float, needed: int) -> None:
    calibration = CalibrationConfig(target_fpr=asked)
    for held_out in (needed, needed - 1):
        certified = held_out > 0 and compute_threshold(np.arange(float(held_out)), asked).certified
        said = describe_shortage(held_out, calibration, parts=False)
        assert (said == []) == certified == (held_out == needed)
        assert certified or f"it takes {good_images_for(asked)} good images in all" in said[0]
    for fraction in (0.2, 0.3, 0.5) if needed > 1 else ():  # a split of two images fits none
        count = good_images_for(asked, fraction)
        assert len(split(count, fraction, 0).calibration) >= needed
        assert round(fraction * (count - 1)) < needed
    assert "0 held-out parts can" in describe_shortage(0, calibration, parts=True)[0]
