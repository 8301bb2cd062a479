"""VisA as published: the authors' split, and errors with line numbers."""

from pathlib import Path

import pytest

from tests.training.data.trees import names, touch
from training.data import visa
from training.data.sample import DatasetError, Sample

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


def test_split_file_decides_training_and_test_images(tmp_path: Path) -> None:
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


def test_training_needs_no_file_of_the_test(tmp_path: Path) -> None:
    lay_out(tmp_path, *ROWS)
    (tmp_path / ANOMALY / "001.JPG").unlink()
    assert len(visa.train_images(tmp_path, "candle")) == 2
    with pytest.raises(
        DatasetError, match=rf"names 1 files that are not in .*: {ANOMALY}/001\.JPG \(line 5\)$"
    ):
        visa.test_samples(tmp_path, "candle")


def test_mask_that_is_missing_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, *ROWS)
    (tmp_path / MASKS / "001.png").unlink()
    with pytest.raises(DatasetError, match=rf"names 1 files .*{MASKS}/001\.png"):
        visa.test_samples(tmp_path, "candle")
