"""Unused images in a category's folder."""

from pathlib import Path

import pytest

from tests.training.data.check.parts import category, part, write
from tests.training.data.trees import touch
from training.data import layout
from training.data.check.data_check import check_data
from training.data.check.unused_images import unused_test_images


def messages(folder: Path, *, test: bool = True) -> list[str]:
    found = check_data(folder.parent, folder.name, test=test).findings
    assert {(f.kind, f.severity) for f in found} <= {("passed_over", "warning")}
    return [f.message for f in found]


@pytest.fixture
def disc(tmp_path: Path) -> Path:
    return category(tmp_path, train=4, good=2, defective=2)


def test_folders_in_a_folder_of_good_parts(disc: Path) -> None:
    write(disc / "train/good/cam2/0.png", part(50))
    write(disc / "train/good/cam2/1.png", part(51))
    write(disc / "test/scratch/cam2/0.png", part(52))
    assert messages(disc) == [
        "test/scratch/cam2: 1 where none are looked for",
        "train/good/cam2: 2 where none are looked for",
    ]
    # A training run does not so much as list the test images.
    assert messages(disc, test=False) == ["train/good/cam2: 2 where none are looked for"]


def test_plain_folders(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"cap/{i}.png", part(i))
    write(tmp_path / "cap/odd/cam1/0.png", part(9))  # of bad/cam1 a run would be refused
    assert messages(tmp_path / "cap") == ["odd/cam1: 1 where none are looked for"]


def test_images_of_unreadable_test_set_are_not_unused(disc: Path) -> None:
    (disc / "ground_truth/scratch/000_mask.png").rename(disc / "ground_truth/scratch/other_mask.png")
    (disc / "ground_truth/scratch/001_mask.png").unlink()
    checked = check_data(disc.parent, disc.name)
    assert checked.no_test is not None
    assert "passed_over" not in checked.counts


def idle(data: Path, name: str, *, without_masks: bool = False) -> list[tuple[str, int]]:
    """The folders, in the category's, of what is idle in its test, with the numbers."""
    samples = layout.test_samples(data, name)
    found = unused_test_images(data, name, samples, without_masks=without_masks)
    return [(one.folder.relative_to(data / name).as_posix(), one.count) for one in found]


@pytest.mark.parametrize("test", ["test", "test_public"])
def test_unused_images_in_mvtec_test_and_masks_are_found(tmp_path: Path, test: str) -> None:
    train = ("train/good/0.png", "train/good/cam1/0.png", "train/bad/0.png")
    tests = (f"{test}/good/1.png", f"{test}/hit/2.png", f"{test}/scratch/cam1/3.png", f"{test}/4.png")
    masks = ("ground_truth/hit/2_mask.png", "ground_truth/hit/a/b/2.png", "ground_truth/hit/2.gif")
    touch(tmp_path / "tile", *train, *tests, *masks, "validation/good/5.png", "test_private/6.png")
    of_test = [(test, 1), (f"{test}/scratch/cam1", 1)]
    assert idle(tmp_path, "tile") == [("ground_truth/hit", 1), ("ground_truth/hit/a/b", 1), *of_test]
    assert idle(tmp_path, "tile", without_masks=True) == of_test
    for path in train:
        (tmp_path / "tile" / path).unlink()
    assert idle(tmp_path, "tile", without_masks=True) == of_test  # a test set may come alone
