"""The layout of MVTec AD: files, order, and errors."""

from pathlib import Path

import pytest

from tests.training.data.trees import names, touch
from training.data import mvtec
from training.data.sample import DatasetError, Sample


def test_training_images_are_sorted_and_of_any_known_suffix(tmp_path: Path) -> None:
    good = "bottle/train/good"
    touch(tmp_path, *(f"{good}/{n}" for n in ("b.PNG", "a.jpg", "d.TiFf", "c.bmp", "e.JPEG")))
    found = mvtec.train_images(tmp_path, "bottle")
    assert names(tmp_path / good, found) == ["a.jpg", "b.PNG", "c.bmp", "d.TiFf", "e.JPEG"]


def test_test_images_come_good_first_with_defect_and_mask(tmp_path: Path) -> None:
    touch(tmp_path, "tile/test/good/0.png", "tile/test/crack/1.png", "tile/test/blob/2.jpg")
    touch(tmp_path, "tile/test/blob/3.jpg", "tile/ground_truth/crack/1.png")
    touch(tmp_path, "tile/ground_truth/blob/3_mask.PNG", "tile/ground_truth/blob/3.png")
    tile = tmp_path / "tile"
    assert mvtec.test_samples(tmp_path, "tile") == [
        Sample(tile / "test/good/0.png", None, None),
        Sample(tile / "test/blob/2.jpg", "blob", None),
        Sample(tile / "test/blob/3.jpg", "blob", tile / "ground_truth/blob/3_mask.PNG"),
        Sample(tile / "test/crack/1.png", "crack", tile / "ground_truth/crack/1.png"),
    ]


def test_masks_under_other_names_are_an_error_not_silence(tmp_path: Path) -> None:
    touch(tmp_path, "tile/test/crack/1.png", "tile/ground_truth/crack/mask-of-1.png")
    with pytest.raises(DatasetError, match=r"mask-of-1\.png, but 1_mask\.png was expected"):
        mvtec.test_samples(tmp_path, "tile")


@pytest.mark.parametrize("present", [(), ("bottle/train/good/1.gif",), ("bottle/train/1.png",)])
def test_no_training_images_is_an_error(tmp_path: Path, present: tuple[str, ...]) -> None:
    (tmp_path / "bottle").mkdir()
    touch(tmp_path, *present)
    with pytest.raises(DatasetError, match=r"no images in .*train/good: expected the layout"):
        mvtec.train_images(tmp_path, "bottle")


def test_btad_calls_them_ok_and_ko(tmp_path: Path) -> None:
    touch(tmp_path, "01/train/ok/0000.bmp", "01/test/ok/0001.bmp", "01/test/ko/0000.bmp")
    touch(tmp_path, "01/ground_truth/ko/0000.png")
    folder = tmp_path / "01"
    assert names(folder, mvtec.train_images(tmp_path, "01")) == ["train/ok/0000.bmp"]
    assert mvtec.test_samples(tmp_path, "01") == [
        Sample(folder / "test/ok/0001.bmp", None, None),
        Sample(folder / "test/ko/0000.bmp", "ko", folder / "ground_truth/ko/0000.png"),
    ]


def test_loco_keeps_masks_of_an_image_in_a_folder(tmp_path: Path) -> None:
    touch(
        tmp_path, "pins/train/good/0.png", "pins/validation/good/1.png", "pins/test/logical_anomalies/000.png"
    )
    touch(tmp_path, "pins/ground_truth/logical_anomalies/000/000.png")
    touch(tmp_path, "pins/ground_truth/logical_anomalies/000/001.png")
    folder = tmp_path / "pins"
    mask = folder / "ground_truth/logical_anomalies/000"
    assert names(folder, mvtec.train_images(tmp_path, "pins")) == ["train/good/0.png"]
    assert mvtec.test_samples(tmp_path, "pins") == [
        Sample(folder / "test/logical_anomalies/000.png", "logical_anomalies", mask)
    ]
    assert mvtec.masks(tmp_path, "pins") == [mask]


def test_ad_2_keeps_masks_inside_its_public_test(tmp_path: Path) -> None:
    can = tmp_path / "can"
    touch(can, "train/good/000_regular.png", "validation/good/000_regular.png", "test_private/000.png")
    touch(can, "test_public/good/000_regular.png", "test_public/bad/001_shift_1.png")
    touch(can, "test_public/ground_truth/bad/001_shift_1_mask.png")
    mask = can / "test_public/ground_truth/bad/001_shift_1_mask.png"
    assert names(can, mvtec.train_images(tmp_path, "can")) == ["train/good/000_regular.png"]
    assert mvtec.test_samples(tmp_path, "can") == [
        Sample(can / "test_public/good/000_regular.png", None, None),
        Sample(can / "test_public/bad/001_shift_1.png", "bad", mask),
    ]
    assert mvtec.masks(tmp_path, "can") == [mask]


def test_masks_beside_their_images_are_masks(tmp_path: Path) -> None:
    tile = tmp_path / "tile"
    touch(tile, "train/good/0.png", "test/good/1.png", "test/crack/1.jpg", "test/crack/1_mask.png")
    assert mvtec.test_samples(tmp_path, "tile") == [
        Sample(tile / "test/good/1.png", None, None),
        Sample(tile / "test/crack/1.jpg", "crack", tile / "test/crack/1_mask.png"),
    ]
    assert mvtec.masks(tmp_path, "tile") == [tile / "test/crack/1_mask.png"]
    touch(tile, "train/good/0_mask.png", "test/good/1_mask.png")
    for find in (mvtec.train_images, mvtec.test_samples):
        with pytest.raises(DatasetError, match=r"_mask\.png is named as the mask of \d\.png"):
            find(tmp_path, "tile")
