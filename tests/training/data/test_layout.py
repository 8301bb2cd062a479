"""Recognition of layouts, and the error without one."""

from pathlib import Path

import pytest

from tests.training.data.trees import touch
from training.data import layout
from training.data.sample import DatasetError

MVTEC = ("train/good/0.png", "test/good/1.png", "test/crack/2.png", "ground_truth/crack/2_mask.png")
VISA = ("Data/Images/Normal/0.JPG", "Data/Images/Anomaly/0.JPG", "Data/Masks/Anomaly/0.png")


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (MVTEC, "MVTec AD"),
        (("train/ok/0.bmp", "test/ko/0.bmp"), "MVTec AD"),
        (("train/good/0.png", "test_public/bad/0.png"), "MVTec AD"),
        (("test/crack/0.png",), "MVTec AD"),
        (VISA, "VisA"),
        (("0.png", "1.png"), "plain folders"),
        (("good/0.png",), "plain folders"),
        (("OK/0.png", "NG/0.png"), "plain folders"),
        (("bad/0.png",), "plain folders"),
        # What lies beside a layout's folders does not hide it.
        ((*MVTEC, "preview.png", "good/0.png"), "MVTec AD"),
        ((*VISA, "preview.png"), "VisA"),
    ],
)
def test_the_layout_is_found_by_looking(tmp_path: Path, files: tuple[str, ...], name: str) -> None:
    touch(tmp_path / "part", *files)
    found = layout.find_layout(tmp_path, "part").NAME
    assert found == name
    assert layout.categories(tmp_path) == ["part"]


def test_unknown_layout_names_expected_and_present_files(tmp_path: Path) -> None:
    touch(tmp_path / "part", *(f"{i}/x/0.png" for i in range(10)), "notes.txt")
    with pytest.raises(DatasetError) as caught:
        layout.find_layout(tmp_path, "part")
    message = str(caught.value)
    for looked_for in ("train/good/*.png", "split_csv/1cls.csv", "good|ok|normal"):
        assert looked_for in message
    assert message.endswith("Found: 0/, 1/, 2/, 3/, 4/, 5/, 6/, 7/ and 2 more.")


def test_missing_category_is_told_with_those_there_are(tmp_path: Path) -> None:
    touch(tmp_path, "tile/train/good/1.png", "bottle/train/good/1.png", "readme.txt", "preview.png")
    touch(tmp_path, ".hidden/train/good/1.png", "other/1.txt")
    for find in (layout.train_images, layout.test_samples):
        with pytest.raises(DatasetError, match=r"no category 'botle' in .*; found: bottle, tile$"):
            find(tmp_path, "botle")
