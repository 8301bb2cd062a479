"""VisA as published: the authors' split decides, and a damaged one is told by its line."""

from pathlib import Path

import pytest

from tests.training.datasets.trees import names, touch
from training.datasets import layout, visa
from training.datasets.sample import DatasetError, Sample

HEADER = "object,split,label,image,mask"
NORMAL, ANOMALY, MASKS = (f"candle/Data/{f}" for f in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"))
ROWS = (
    f"candle,train,normal,{NORMAL}/0002.JPG,",
    f"candle,train,normal,{NORMAL}/0001.JPG,",
    "cashew,train,normal,cashew/Data/Images/Normal/0001.JPG,",
    f"candle,test,anomaly,{ANOMALY}/001.JPG,{MASKS}/001.png",
    f"candle,test,anomaly,{ANOMALY}/000.JPG,",
    f"candle,test,normal,{NORMAL}/0000.JPG,",
)


def lay_out(root: Path, *rows: str, header: str = HEADER) -> None:
    touch(root, *(f"{NORMAL}/000{i}.JPG" for i in range(3)), f"{ANOMALY}/000.JPG", f"{ANOMALY}/001.JPG")
    touch(root, f"{MASKS}/001.png", "split_csv/1cls.csv")
    (root / visa.SPLIT).write_text("\n".join([header, *rows]) + "\n")


def test_the_split_says_what_is_learned_from_and_what_is_tested_on(tmp_path: Path) -> None:
    lay_out(tmp_path, *ROWS)
    assert names(tmp_path, visa.train_images(tmp_path, "candle")) == [
        f"{NORMAL}/0001.JPG",
        f"{NORMAL}/0002.JPG",
    ]
    assert visa.test_samples(tmp_path, "candle") == [
        Sample(tmp_path / NORMAL / "0000.JPG", None, None),
        Sample(tmp_path / ANOMALY / "000.JPG", "anomaly", None),
        Sample(tmp_path / ANOMALY / "001.JPG", "anomaly", tmp_path / MASKS / "001.png"),
    ]
    assert names(tmp_path, visa.masks(tmp_path, "candle")) == [f"{MASKS}/001.png"]


def test_other_line_ends_a_mark_and_blank_lines_are_read(tmp_path: Path) -> None:
    lay_out(tmp_path)
    text = "\r\n".join([HEADER, *ROWS, ""])
    (tmp_path / visa.SPLIT).write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert len(visa.train_images(tmp_path, "candle")) == 2


def test_training_needs_no_file_of_the_test(tmp_path: Path) -> None:
    lay_out(tmp_path, *ROWS)
    (tmp_path / ANOMALY / "001.JPG").unlink()
    assert len(visa.train_images(tmp_path, "candle")) == 2
    with pytest.raises(
        DatasetError, match=rf"names 1 files that are not in .*: {ANOMALY}/001\.JPG \(line 5\)$"
    ):
        visa.test_samples(tmp_path, "candle")


def test_a_mask_that_is_missing_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, *ROWS)
    (tmp_path / MASKS / "001.png").unlink()
    with pytest.raises(DatasetError, match=rf"names 1 files .*{MASKS}/001\.png"):
        visa.test_samples(tmp_path, "candle")


def test_of_many_missing_files_some_are_named_and_all_counted(tmp_path: Path) -> None:
    lay_out(tmp_path, *(f"candle,train,normal,{NORMAL}/9{i:03}.JPG," for i in range(7)))
    with pytest.raises(
        DatasetError, match=r"names 7 files .*9000\.JPG \(line 2\), .*9002\.JPG \(line 4\) and 4 more$"
    ):
        visa.train_images(tmp_path, "candle")


def test_without_the_split_its_place_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, *ROWS)
    (tmp_path / visa.SPLIT).unlink()
    with pytest.raises(DatasetError, match=r"laid out as in VisA, but .*split_csv/1cls\.csv is missing"):
        visa.train_images(tmp_path, "candle")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_category_that_the_split_does_not_know_is_an_error(tmp_path: Path, split: str) -> None:
    lay_out(tmp_path, *(row for row in ROWS if not row.startswith(f"candle,{split}")))
    find = visa.train_images if split == "train" else visa.test_samples
    with pytest.raises(DatasetError, match=rf"1cls\.csv has no rows of the category for {split}$"):
        find(tmp_path, "candle")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("candle,train,normal", r"line 2: expected 5 columns; got 3"),
        (f"candle,valid,normal,{NORMAL}/0001.JPG,", r"line 2: the split must be train or test.*got 'valid'"),
        (f"candle,train,good,{NORMAL}/0001.JPG,", r"line 2: .*the label normal or anomaly.*'good'"),
        ("candle,train,normal,,", r"line 2: no picture is named"),
        (
            "candle,train,normal,/etc/passwd,",
            r"line 2: '/etc/passwd' is not in the category's folder, candle/",
        ),
        ("candle,train,normal,other/x.JPG,", r"line 2: 'other/x\.JPG' is not in the category's folder"),
        ("candle,train,normal,candle/../../x.JPG,", r"line 2: .* is not in the category's folder"),
        (f"candle,train,normal,{NORMAL}/0001.JPG,../m.png", r"line 2: '\.\./m\.png' is not in the"),
        (f"candle,train,anomaly,{ANOMALY}/001.JPG,", r"line 2 puts a picture with the label 'anomaly' into"),
    ],
)
def test_a_damaged_row_is_told_by_its_line(tmp_path: Path, row: str, message: str) -> None:
    lay_out(tmp_path, row)
    with pytest.raises(DatasetError, match=message):
        visa.train_images(tmp_path, "candle")


@pytest.mark.parametrize("second", ["train,normal", "test,normal"])
def test_a_picture_that_is_there_twice_is_told(tmp_path: Path, second: str) -> None:
    """It would be on both sides of a split, or learned from and tested on."""
    lay_out(tmp_path, f"candle,train,normal,{NORMAL}/0001.JPG,", f"candle,{second},{NORMAL}/0001.JPG,")
    with pytest.raises(DatasetError, match=r"line 3: '.*/0001\.JPG' is there twice, first in line 2"):
        visa.train_images(tmp_path, "candle")


@pytest.mark.parametrize("header", ["", "image,label", f"x{HEADER}"])
def test_another_table_is_not_read_as_a_split(tmp_path: Path, header: str) -> None:
    lay_out(tmp_path, *ROWS, header=header)
    with pytest.raises(DatasetError, match="must begin with object,split,label,image,mask"):
        visa.train_images(tmp_path, "candle")


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (tmp_path / visa.SPLIT).write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DatasetError, match="not a text in UTF-8"):
        visa.train_images(tmp_path, "candle")


def test_of_masks_that_the_split_does_not_name_no_place_is_expected(tmp_path: Path) -> None:
    lay_out(tmp_path, *ROWS[:3], *ROWS[4:])
    tested = layout.test_samples(tmp_path, "candle")
    assert {sample.mask for sample in tested} == {None}
    assert layout.unused_masks(tmp_path, "candle", tested) is None
