"""Masks: orphans, wrong sizes, empty and missing ones."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.data.check.parts import SIZE, category, part, write
from training.data.check.data_check import check_data
from training.data.check.findings import DataFinding


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    return category(tmp_path, train=3, good=1, defective=3)


def findings(disc: Path) -> list[DataFinding]:
    return check_data(disc.parent, disc.name).findings


def mask(disc: Path, number: int) -> Path:
    return disc / f"ground_truth/scratch/{number:03}_mask.png"


def test_mask_without_an_image_is_named(disc: Path) -> None:
    shutil.copy(mask(disc, 0), mask(disc, 7))
    write(disc / "ground_truth/dent/000_mask.png", np.zeros((SIZE, SIZE), np.uint8))
    assert [(f.kind, f.severity, f.files) for f in findings(disc)] == [
        ("mask_without_picture", "warning", ["ground_truth/dent/000_mask.png"]),
        ("mask_without_picture", "warning", ["ground_truth/scratch/007_mask.png"]),
    ]


def alpha() -> NDArray[np.uint8]:
    """White all over, and drawn in its alpha channel."""
    image = np.full((SIZE, SIZE, 4), 255, np.uint8)
    image[..., 3] = 0
    image[40:50, 20:70, 3] = 255
    return image


def shades() -> NDArray[np.uint8]:
    image = np.zeros((SIZE, SIZE), np.uint8)
    image[40:50, 20:45], image[40:50, 45:70] = 60, 240
    return image


@pytest.mark.parametrize(
    ("image", "kind", "said"),
    [
        (np.full((SIZE, 50), 255, np.uint8), "mask_unusable", f"has size 50x{SIZE}, its image {SIZE}x"),
        (np.zeros((SIZE, SIZE), np.uint8), "mask_empty", "{mask} marks no pixel of test/scratch/001.png"),
        (alpha(), "mask_full", "{mask} marks 100% of test/scratch/001.png"),
        (shades(), "mask_shades", "37% of what is drawn in {mask}"),
    ],
    ids=["another size", "empty", "full", "darker shades"],
)
def test_odd_mask_is_reported_with_relative_path(
    disc: Path, image: NDArray[np.uint8], kind: str, said: str
) -> None:
    assert cv2.imwrite(str(mask(disc, 1)), image)
    [found] = findings(disc)
    assert (found.kind, found.severity) == (kind, "warning")
    assert said.format(mask="ground_truth/scratch/001_mask.png") in found.message
    assert str(disc) not in found.message


def test_defect_without_a_mask_is_reported_if_others_have_one(disc: Path) -> None:
    mask(disc, 2).unlink()
    [found] = findings(disc)
    assert (found.kind, found.files) == ("defect_without_mask", ["test/scratch/002.png"])
    shutil.rmtree(disc / "ground_truth")
    assert findings(disc) == []


BLACK = np.zeros((SIZE, SIZE), np.uint8)
MARKED = BLACK.copy()
MARKED[:12, :12] = 255


@pytest.fixture
def plain(disc: Path) -> Path:
    """Good parts, of which some are learned from, and defective ones of one kind, with their masks."""
    folder = disc.parent / "cap"
    for i in range(10):
        write(folder / f"good/{i:03}.png", part(i))
    shutil.copytree(disc / "test/scratch", folder / "scratch")
    shutil.copytree(disc / "ground_truth/scratch", folder / "masks/scratch")
    return folder


def test_black_masks_of_good_parts_are_ignored(disc: Path, plain: Path) -> None:
    """Some tools write one for every image, of those that are learned from, too."""
    for name in ("000_mask.png", "001.png", "777.png"):
        write(disc / "ground_truth/good" / name, BLACK)
    [found] = findings(disc)  # 001 is learned from
    assert (found.kind, found.files) == ("mask_without_picture", ["ground_truth/good/777.png"])
    for i in range(10):
        write(plain / f"masks/good/{i:03}.png", BLACK)
    assert findings(plain) == []


def test_marked_good_part_is_reported(disc: Path, plain: Path) -> None:
    write(disc / "ground_truth/good/000_mask.png", MARKED)
    [found] = findings(disc)
    assert found.kind == "mask_of_good"
    assert found.files == ["ground_truth/good/000_mask.png", "test/good/000.png"]
    assert found.message == (
        "ground_truth/good/000_mask.png marks 1.6% of test/good/000.png, which lies among the good parts"
    )
    for i in range(10):
        write(plain / f"masks/good/{i:03}.png", MARKED)
    told = sorted((f.kind, *f.files) for f in findings(plain))
    assert told == [("mask_of_good", f"masks/good/{i:03}.png", f"good/{i:03}.png") for i in range(10)]
