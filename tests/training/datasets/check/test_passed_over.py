"""Pictures that nobody looks at are told, and nothing else is."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.odd_names import ESCAPED, LATIN_1, renamed
from tests.rights import without_roots_rights
from tests.training.datasets.check.parts import SIZE, category, part, write
from tests.training.datasets.trees import touch
from training.datasets import layout
from training.datasets.check import check
from training.datasets.check.passed_over import idle_in_test


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


def test_a_folder_that_is_not_in_utf8_is_told(disc: Path) -> None:
    (disc / "test/scratch/cam").mkdir()
    write(disc / "test/scratch/cam/0.png", part(50))
    folder = renamed(disc / "test/scratch/cam")
    assert folder.name == LATIN_1
    assert messages(disc) == [f"test/scratch/{ESCAPED}: 1 where none are looked for"]


def test_a_folder_that_may_not_be_entered_is_told(disc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = disc / "test/scratch/cam1"
    write(closed / "0.png", part(50))
    closed.chmod(0o744)
    monkeypatch.chdir(disc.parent)  # what is above it may be root's alone
    disc.parent.chmod(0o755)
    with without_roots_rights():
        found = messages(Path(disc.name))
    assert found == ["test/scratch/cam1: 1 that may not be looked at"]


def idle(data: Path, name: str, *, without_masks: bool = False) -> list[tuple[str, int]]:
    """The folders, in the category's, of what is idle in its test, with the numbers."""
    samples = layout.test_samples(data, name)
    found = idle_in_test(data, name, samples, without_masks=without_masks)
    return [(one.place.relative_to(data / name).as_posix(), one.count) for one in found]


@pytest.mark.parametrize("test", ["test", "test_public"])
def test_in_the_test_of_mvtec_it_is_what_lies_there_or_among_its_masks(tmp_path: Path, test: str) -> None:
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


def test_in_the_test_of_plain_folders_it_is_all_that_training_does_not_tell(tmp_path: Path) -> None:
    good = [f"good/{i}.png" for i in range(5)]
    masks = ("masks/dent/0.png", "masks/dent/a/b/0.png")
    touch(tmp_path / "cap", *good, "good/cam1/0.png", "dent/0.png", "scratch/cam1/0.png", *masks)
    assert idle(tmp_path, "cap") == [("masks/dent/a/b", 1), ("scratch/cam1", 1)]
    assert idle(tmp_path, "cap", without_masks=True) == [("scratch/cam1", 1)]


def test_where_a_list_names_the_test_pictures_none_is_idle(tmp_path: Path) -> None:
    named = [f"candle/Data/Images/Normal/{i}.JPG" for i in range(2)]
    touch(tmp_path, *named, "candle/Data/Images/Normal/2.JPG", "candle/Data/Images/Anomaly/cam1/0.JPG")
    rows = [f"candle,{split},normal,{name}," for split, name in zip(("train", "test"), named, strict=True)]
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text("\n".join(["object,split,label,image,mask", *rows]))
    assert idle(tmp_path, "candle") == []


def test_without_masks_that_can_be_listed_nothing_is_called_idle(tmp_path: Path) -> None:
    """A picture too deep may be one, and who asks the data check is told what is wrong."""
    touch(tmp_path / "tile", "train/good/0.png", "test/hit/1.png", "test/hit/cam1/2.png")
    touch(tmp_path / "tile", "ground_truth/dent/3_mask.png")
    renamed(tmp_path / "tile/ground_truth/dent")
    assert idle(tmp_path, "tile") == []
