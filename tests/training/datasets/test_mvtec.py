"""The layout of MVTec AD: what is found, in which order, and what is said when it is another."""

from pathlib import Path

import pytest

from training.datasets import mvtec
from training.datasets.sample import DatasetError, Sample


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(root: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_training_pictures_are_sorted_and_of_any_known_suffix(tmp_path: Path) -> None:
    good = "bottle/train/good"
    touch(tmp_path, *(f"{good}/{n}" for n in ("b.PNG", "a.jpg", "d.TiFf", "c.bmp", "e.JPEG")))
    found = mvtec.train_images(tmp_path, "bottle")
    assert names(tmp_path / good, found) == ["a.jpg", "b.PNG", "c.bmp", "d.TiFf", "e.JPEG"]


def test_what_is_no_picture_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "bottle/train/good/1.png", "bottle/train/good/Thumbs.db")
    touch(tmp_path, "bottle/train/good/._1.png", "bottle/train/good/notes.txt")
    touch(tmp_path, "bottle/train/good/folder.png/2.png")
    assert names(tmp_path, mvtec.train_images(tmp_path, "bottle")) == ["bottle/train/good/1.png"]


def test_training_never_looks_at_the_test_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "bottle/train/good/1.png", "bottle/train/broken/2.png")
    (tmp_path / "bottle" / "test").touch()  # a file: any attempt to list it would fail
    assert names(tmp_path, mvtec.train_images(tmp_path, "bottle")) == ["bottle/train/good/1.png"]


def test_test_pictures_come_good_first_with_defect_and_mask(tmp_path: Path) -> None:
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


def test_masks_may_be_missing_altogether(tmp_path: Path) -> None:
    touch(tmp_path, "cell/test/good/0.png", "cell/test/defective/1.png")
    assert [s.mask for s in mvtec.test_samples(tmp_path, "cell")] == [None, None]


def test_masks_under_other_names_are_an_error_not_silence(tmp_path: Path) -> None:
    touch(tmp_path, "tile/test/crack/1.png", "tile/ground_truth/crack/mask-of-1.png")
    with pytest.raises(DatasetError, match=r"mask-of-1\.png, but 1_mask\.png was expected"):
        mvtec.test_samples(tmp_path, "tile")


def test_a_test_folder_may_lack_good_pictures_or_defects(tmp_path: Path) -> None:
    touch(tmp_path, "a/test/good/0.png", "b/test/crack/0.png")
    (tmp_path / "a" / "test" / "empty").mkdir()
    assert [s.defect for s in mvtec.test_samples(tmp_path, "a")] == [None]
    assert [s.defect for s in mvtec.test_samples(tmp_path, "b")] == ["crack"]


def test_a_missing_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no data folder .*/nowhere"):
        mvtec.train_images(tmp_path / "nowhere", "bottle")


def test_a_missing_category_is_told_with_those_there_are(tmp_path: Path) -> None:
    touch(tmp_path, "tile/train/good/1.png", "bottle/train/good/1.png", "readme.txt")
    touch(tmp_path, ".hidden/train/good/1.png", "other/1.png")
    for find in (mvtec.train_images, mvtec.test_samples):
        with pytest.raises(DatasetError, match=r"no category 'botle' in .*; found: bottle, tile$"):
            find(tmp_path, "botle")


def test_a_folder_of_another_layout_is_told_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"found: none; expected the layout of MVTec AD"):
        mvtec.train_images(tmp_path, "bottle")


def test_a_category_given_as_the_data_folder_is_noticed(tmp_path: Path) -> None:
    touch(tmp_path, "bottle/train/good/1.png")
    with pytest.raises(DatasetError, match=r"holds one category itself.*'bottle' as the category"):
        mvtec.train_images(tmp_path / "bottle", "bottle")


@pytest.mark.parametrize("present", [(), ("bottle/train/good/1.gif",), ("bottle/train/1.png",)])
def test_no_training_pictures_is_an_error(tmp_path: Path, present: tuple[str, ...]) -> None:
    (tmp_path / "bottle").mkdir()
    touch(tmp_path, *present)
    with pytest.raises(DatasetError, match=r"no pictures in .*train/good: expected the layout"):
        mvtec.train_images(tmp_path, "bottle")


@pytest.mark.parametrize("present", [(), ("bottle/test/1.png",), ("bottle/test/good/1.txt",)])
def test_no_test_pictures_is_an_error(tmp_path: Path, present: tuple[str, ...]) -> None:
    (tmp_path / "bottle").mkdir()
    touch(tmp_path, *present)
    with pytest.raises(DatasetError, match=r"no pictures in the folders of .*test: expected"):
        mvtec.test_samples(tmp_path, "bottle")


def test_the_licence_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "bottle").mkdir()
    assert mvtec.licence(tmp_path, "bottle") is None
    file = tmp_path / "bottle" / "licence.txt"
    file.write_text("\n")
    assert mvtec.licence(tmp_path, "bottle") is None
    file.write_text("CC BY-NC-SA 4.0, CC-BY-NC-SA-4.0\r\nmore\n", newline="")
    assert mvtec.licence(tmp_path, "bottle") == "CC BY-NC-SA 4.0, CC-BY-NC-SA-4.0"
