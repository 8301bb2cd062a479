"""The complete data check: each fault of a category is named, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flows.fastflow.calibration.images_per_part import PARTS
from flows.fastflow.imaging.decoder import read_image
from tests.training.data.check.parts import SIZE, category, part, write
from training.data.check.data_check import check_data
from training.data.sample import DatasetError


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a category that has nothing wrong with it. Not to be changed: `disc` is a copy."""
    root = tmp_path_factory.mktemp("faultless")
    category(root, defective=3)
    return root


@pytest.fixture
def disc(faultless: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(faultless / "disc", tmp_path / "disc"))


def found(folder: Path, *, test: bool = True) -> dict[str, list[list[str]]]:
    by_kind: dict[str, list[list[str]]] = {}
    for finding in check_data(folder.parent, folder.name, test=test).findings:
        by_kind.setdefault(finding.kind, []).append(finding.files)
    return by_kind


def test_faultless_category_has_no_findings(faultless: Path) -> None:
    checked = check_data(faultless, "disc")
    assert checked.findings == []
    assert (checked.train, checked.test, checked.masks, checked.layout) == (30, 7, 3, "MVTec AD")
    assert [(s.width, s.height, s.count) for s in checked.sizes] == [(SIZE, SIZE, 30)]
    assert checked.counts == {}
    assert len(checked.lines()) == 1
    checked.raise_for_errors()


def test_only_corrupt_training_files_are_errors(disc: Path) -> None:
    good = disc / "train/good"
    (good / "003.png").write_bytes(b"")
    (good / "007.png").write_bytes((good / "007.png").read_bytes()[:500])
    (disc / "test/good/001.png").write_bytes(b"GIF89a")
    checked = check_data(disc.parent, "disc")
    assert [(f.severity, f.files) for f in checked.findings] == [
        ("error", ["train/good/003.png"]),
        ("error", ["train/good/007.png"]),
        ("warning", ["test/good/001.png"]),
    ]
    assert "it is empty" in checked.findings[0].message
    assert "truncated" in checked.findings[1].message
    with pytest.raises(
        DatasetError, match=r"(?s)^2 training images of disc cannot.*003\.png: .*007\.png: "
    ) as told:
        checked.raise_for_errors()
    assert "test/good" not in str(told.value)


def test_copies_are_found_within_training_and_across_to_the_test(disc: Path) -> None:
    good = disc / "train/good"
    shutil.copy(good / "002.png", good / "900.png")
    shutil.copy(good / "005.png", disc / "test/good/905.png")
    assert found(disc) == {
        "leak": [["test/good/905.png", "train/good/005.png"]],
        "duplicate": [["train/good/002.png", "train/good/900.png"]],
    }
    assert found(disc, test=False) == {"duplicate": [["train/good/002.png", "train/good/900.png"]]}


Change = Callable[[NDArray[np.uint8]], NDArray[Any]]
NOISE = np.random.default_rng(0).normal(0, 3, (SIZE, SIZE, 3))
SAVED_ANEW: dict[str, Change] = {
    "brighter": lambda image: image * 1.08,
    "noisy": lambda image: image + NOISE,
    "the same": lambda image: image,
}


@pytest.mark.parametrize("change", SAVED_ANEW)
def test_copy_saved_anew_is_a_near_duplicate(disc: Path, change: str) -> None:
    good = disc / "train/good"
    for number, copy in ((2, "train/good/900"), (5, "test/good/905"), (6, "test/scratch/906")):
        changed = SAVED_ANEW[change](read_image(good / f"00{number}.png")).clip(0, 255).astype(np.uint8)
        write(disc / f"{copy}.jpg", changed, cv2.IMWRITE_JPEG_QUALITY, 80)
    kinds = found(disc)
    assert kinds["near_duplicate"] == [["train/good/002.png", "train/good/900.jpg"]]
    assert sorted(kinds["leak"]) == [
        ["test/good/905.jpg", "train/good/005.png"],
        ["test/scratch/906.jpg", "train/good/006.png"],
    ]


def test_part_in_training_and_test_is_a_leak(disc: Path) -> None:
    (disc / "test/good/002.png").rename(disc / "test/good/017-b.png")
    for i in (0, 1, 3):
        (disc / f"test/good/{i:03}.png").rename(disc / f"test/good/9{i:02}.png")
    (disc / "train/good/017.png").rename(disc / "train/good/017-c.png")
    assert found(disc) == {}
    (disc / PARTS).write_text(r"^\d+")
    assert found(disc) == {"leak": [["test/good/017-b.png", "train/good/017-c.png"]]}
    assert found(disc, test=False) == {}


def test_outlier_names_its_odd_property(disc: Path) -> None:
    good = disc / "train/good"
    write(good / "901.png", np.full((SIZE, SIZE, 3), (90, 80, 70), np.uint8))
    write(good / "902.png", np.asarray(part(902) // 40, dtype=np.uint8))
    write(good / "903.png", np.asarray(250 + part(903) // 60, dtype=np.uint8))
    write(good / "904.png", np.asarray(part(904)[:, :64]))
    write(good / "905.png", part(905)[..., 1].copy())
    write(disc / "test/good/906.png", np.asarray(part(906) // 3, dtype=np.uint8))
    write(disc / "test/scratch/907.png", np.asarray(part(907) // 3, dtype=np.uint8))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[: SIZE // 2] = 255
    write(disc / "ground_truth/scratch/907_mask.png", mask)
    kinds = found(disc)
    assert kinds["blank"] == [["train/good/901.png"]]
    # A defective part may be dark: that is no fault of the data.
    assert kinds["exposure"] == [["train/good/902.png"], ["train/good/903.png"], ["test/good/906.png"]]
    assert kinds["size"] == [["train/good/904.png"]]
    assert ["train/good/905.png"] in kinds["colour"]
    assert not any("scratch" in name for groups in kinds.values() for files in groups for name in files)


UNLIKE: dict[str, Change] = {
    "blurred": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 3)),
    "moved": lambda image: np.roll(image, 40, axis=1),
    "striped": lambda image: np.where(np.arange(SIZE)[:, None, None] % 4, image, image // 2),
}


@pytest.mark.parametrize("change", UNLIKE)
def test_image_unlike_the_others_is_an_outlier(disc: Path, change: str) -> None:
    write(disc / "train/good/900.png", UNLIKE[change](part(900)))
    checked = check_data(disc.parent, "disc", test=False)
    assert [f.files for f in checked.findings if f.kind == "outlier"] == [["train/good/900.png"]]


def deep(path: Path, seed: int, bits: int) -> None:
    """A grey part of 16 bits whose samples take so many."""
    grey = part(seed).mean(2) / 256 * 2**bits
    assert cv2.imwrite(str(path), grey.astype(np.uint16))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("bits", "shades"), [(10, 4), (12, 16)])
def test_camera_that_leaves_the_upper_bits_is_told_once(
    tmp_path: Path, bits: int, shades: int, suffix: str
) -> None:
    good = tmp_path / "cap/good"
    good.mkdir(parents=True)
    for i in range(6):
        deep(good / f"{i}{suffix}", i, bits)
    [finding] = [f for f in check_data(tmp_path, "cap").findings if f.kind == "depth"]
    assert (finding.measure, len(finding.files)) == (bits, 6)
    assert f"6 images of 16 bits use {bits} of them at most" in finding.message
    assert f"which leaves {shades} shades of grey: set sample_bits: {bits} in" in finding.message
    assert "depth" not in {f.kind for f in check_data(tmp_path, "cap", sample_bits=bits).findings}
    samples = cv2.imread(str(good / f"5{suffix}"), cv2.IMREAD_UNCHANGED)
    assert samples is not None
    samples[0, 0] = 2**16 - 1  # a pixel that is hot says nothing of the others
    assert cv2.imwrite(str(good / f"5{suffix}"), samples)
    [finding] = [f for f in check_data(tmp_path, "cap").findings if f.kind == "depth"]
    assert f"use {bits} of them at most, but for single pixels." in finding.message
    deep(good / f"5{suffix}", 5, bits)
    deep(good / f"6{suffix}", 6, 16)  # so the others are dark, and not of fewer bits
    assert "depth" not in found(tmp_path / "cap")
    [finding] = [f for f in check_data(tmp_path, "cap", sample_bits=bits).findings if f.kind == "depth"]
    assert finding.files == [f"good/6{suffix}"]
    assert (
        f"use up to 16 of them, and sample_bits is {bits}: what is above {2**bits - 1} is" in finding.message
    )
