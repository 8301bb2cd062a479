"""Plain folders: good images, images kept for the test, and ambiguous folders."""

from pathlib import Path

import pytest

from flows.fastflow.calibration.images_per_part import PARTS
from tests.training.data.trees import names, touch
from training.data import plain
from training.data.sample import DatasetError, Sample


def test_folder_of_images_is_all_good(tmp_path: Path) -> None:
    touch(tmp_path / "cap", "b.PNG", "a.jpg", "notes.txt", "._a.jpg")
    assert names(tmp_path / "cap", plain.train_images(tmp_path, "cap")) == ["a.jpg", "b.PNG"]
    with pytest.raises(DatasetError, match=r"good parts alone.*: to test, move them into .*cap/good, "):
        plain.test_samples(tmp_path, "cap")


def test_fifth_of_good_parts_is_kept_for_test_with_defects(tmp_path: Path) -> None:
    cap = tmp_path / "cap"
    touch(cap, *(f"good/{i}.png" for i in range(50)), "scratch/1.png", "bad/2.png")
    learned, tested = plain.train_images(tmp_path, "cap"), plain.test_samples(tmp_path, "cap")
    kept = [s.path for s in tested if s.defect is None]
    assert (len(learned), len(kept)) == (40, 10)
    assert sorted([*learned, *kept]) == sorted((cap / "good").iterdir())
    assert tested[10:] == [
        Sample(cap / "bad/2.png", "bad", None),
        Sample(cap / "scratch/1.png", "scratch", None),
    ]
    # By what the files are called alone: a copy elsewhere, made in another order, is divided the same.
    touch(tmp_path / "copy", "bad/2.png", *(f"good/{i}.png" for i in reversed(range(50))))
    assert [p.name for p in plain.train_images(tmp_path, "copy")] == [p.name for p in learned]


def test_images_of_a_part_stay_together(tmp_path: Path) -> None:
    cap = tmp_path / "cap"
    touch(cap, *(f"good/{part}_{i}.png" for part in range(20) for i in range(3)), "bad/1.png")
    (cap / PARTS).write_text("^(.+)_")
    learned = {path.name.partition("_")[0] for path in plain.train_images(tmp_path, "cap")}
    good = [sample.path for sample in plain.test_samples(tmp_path, "cap") if sample.defect is None]
    kept = {path.name.partition("_")[0] for path in good}
    assert (len(learned), len(kept), len(good)) == (16, 4, 12)
    assert learned.isdisjoint(kept)


def test_masks_beside_their_images_are_masks(tmp_path: Path) -> None:
    cap = tmp_path / "cap"
    touch(cap, *(f"good/{i}.png" for i in range(10)))
    touch(cap, "dent/0.jpg", "dent/0_mask.png", "dent/1.jpg", "dent/2_mask.png", "masks/dent/1_mask.png")
    assert [s for s in plain.test_samples(tmp_path, "cap") if s.defect] == [
        Sample(cap / "dent/0.jpg", "dent", cap / "dent/0_mask.png"),
        Sample(cap / "dent/1.jpg", "dent", cap / "masks/dent/1_mask.png"),
        Sample(cap / "dent/2_mask.png", "dent", None),  # of nothing, so it is no mask
    ]
    assert names(cap, plain.masks(tmp_path, "cap")) == ["masks/dent/1_mask.png", "dent/0_mask.png"]


@pytest.mark.parametrize("where", ["good/", ""])
def test_mask_among_good_parts_is_refused(tmp_path: Path, where: str) -> None:
    touch(tmp_path / "cap", *(f"{where}{i}.png" for i in range(10)), f"{where}3_mask.png")
    with pytest.raises(
        DatasetError, match=r"3_mask\.png is named as the mask of 3\.png, and good parts have"
    ):
        plain.train_images(tmp_path, "cap")


@pytest.mark.parametrize("folder", ["good", "scratch"])
def test_images_beside_folders_of_images_are_not_guessed_at(tmp_path: Path, folder: str) -> None:
    touch(tmp_path / "cap", "0.png", "1.png", f"{folder}/2.png")
    for find in (plain.train_images, plain.test_samples):
        with pytest.raises(DatasetError, match=rf"2 images beside .*\({folder}/\).*whether 0\.png is good"):
            find(tmp_path, "cap")
