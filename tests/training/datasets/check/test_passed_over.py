"""Pictures that nobody looks at are told, and nothing else is."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.training.datasets.check.parts import SIZE, category, part, write
from training.datasets.check import check


def messages(folder: Path, *, test: bool = True) -> list[str]:
    found = check(folder.parent, folder.name, test=test).findings
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
    # A training run does not so much as list the test pictures.
    assert messages(disc, test=False) == ["train/good/cam2: 2 where none are looked for"]


def test_kinds_that_are_not_read_and_links_to_nothing(disc: Path) -> None:
    (disc / "train/good/9.GIF").write_bytes(b"GIF89a")
    (disc / "train/good/10.png").symlink_to(disc / "gone.png")
    assert messages(disc) == [
        "train/good: 1 that are links to nothing",
        "train/good: 1 with the suffix .gif, which is not read",
    ]


def test_what_an_operating_system_leaves_is_no_picture(disc: Path) -> None:
    write(disc / "train/good/.thumbnails/0.png", part(50))
    (disc / "train/good/._000.png").write_bytes(b"notes")
    (disc / "readme.txt").write_text("from the line")
    (disc / "licence.txt").write_text("none")
    assert messages(disc) == []


def test_masks_are_looked_at_whether_files_or_folders(disc: Path) -> None:
    parts = disc / "ground_truth/scratch/001"
    parts.mkdir()
    (disc / "ground_truth/scratch/001_mask.png").rename(parts / "000.png")
    write(parts / "001.png", np.zeros((SIZE, SIZE), np.uint8))
    assert messages(disc) == []


def test_plain_folders(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"cap/{i}.png", part(i))
    write(tmp_path / "cap/odd/cam1/0.png", part(9))  # of bad/cam1 a run would be refused
    assert messages(tmp_path / "cap") == ["odd/cam1: 1 where none are looked for"]


@pytest.mark.parametrize("fault", ["mask", "name"])
def test_a_fault_of_the_test_set_is_told_once(disc: Path, fault: str) -> None:
    """Its pictures lie where they should, and its masks have pictures."""
    if fault == "mask":
        (disc / "test/good/000_mask.png").write_bytes((disc / "test/good/000.png").read_bytes())
    else:
        folder = disc / "test" / os.fsdecode(b"ca\xff")
        folder.mkdir()
    checked = check(disc.parent, disc.name)
    assert checked.no_test is not None
    assert ("named as the mask" if fault == "mask" else "not in UTF-8") in checked.no_test
    assert checked.counts == {}


def test_where_there_are_no_test_pictures_it_looks_for_some_elsewhere(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"cap/good/{i}.png", part(i))
    write(tmp_path / "cap/scratched/cam1/0.png", part(9))
    assert check(tmp_path, "cap").no_test is not None
    assert messages(tmp_path / "cap") == ["scratched/cam1: 1 where none are looked for"]
    assert messages(tmp_path / "cap", test=False) == []


def test_what_lies_beside_the_training_pictures_may_be_for_the_test(tmp_path: Path) -> None:
    """A fifth of the good ones of plain folders, and of VisA what its split says; training opens none."""
    for i in range(10):
        write(tmp_path / f"cap/good/{i}.png", part(i))
    write(tmp_path / "cap/ng/0.png", part(50))
    assert messages(tmp_path / "cap", test=False) == messages(tmp_path / "cap") == []
    rows = ["object,split,label,image,mask"]
    for i in range(10):
        name = f"candle/Data/Images/Normal/{i}.JPG"
        write(tmp_path / name, part(i))
        rows.append(f"candle,{'test' if i < 2 else 'train'},normal,{name},")
    write(tmp_path / "candle/Data/Images/Anomaly/0.JPG", part(60))
    rows.append("candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text("\n".join(rows))
    assert messages(tmp_path / "candle", test=False) == messages(tmp_path / "candle") == []


def test_without_a_readable_test_set_its_pictures_are_not_called_idle(disc: Path) -> None:
    """Why there is none is told already."""
    (disc / "ground_truth/scratch/000_mask.png").rename(disc / "ground_truth/scratch/other_mask.png")
    (disc / "ground_truth/scratch/001_mask.png").unlink()
    checked = check(disc.parent, disc.name)
    assert checked.no_test is not None
    assert "passed_over" not in checked.counts
