"""Near copies: test images that are almost training images of the version."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from flows.fastflow.bundle.image_digests import ImageDigests
from flows.fastflow.calibration.images_per_part import PARTS, PartsError
from flows.fastflow.imaging.decoder import read_image
from tests.conftest import png
from training.data.check.image_statistics import make_thumbnail
from training.evaluation.near_copies import NearCopies, images_of_version, near_copies


def texture(seed: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_CUBIC))


def wrote(path: Path, image: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(image))
    return path


@pytest.fixture
def train(tmp_path: Path) -> list[Path]:
    return [wrote(tmp_path / f"train/good/{i:02}.png", texture(i)) for i in range(30)]


@pytest.fixture
def test(tmp_path: Path, train: list[Path]) -> list[Path]:
    """One of a part that training never saw, and two that it saw: with a grey level more, and as a JPEG."""
    seen = read_image(train[7]).clip(0, 254) + 1
    jpeg = tmp_path / "test/good/c.jpg"
    jpeg.parent.mkdir(parents=True)
    assert cv2.imwrite(str(jpeg), read_image(train[3])[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])
    unseen = wrote(tmp_path / "test/good/a.png", texture(99))
    return [unseen, wrote(tmp_path / "test/dent/b.png", seen), jpeg]


def known(paths: list[Path]) -> list[ImageDigests]:
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return [ImageDigests(digests[:5]), ImageDigests(digests[5:])]


def looked(test: list[Path], learned: list[Path], versions: list[Path], folder: Path) -> NearCopies:
    learned = images_of_version(learned, known(versions))
    advanced: list[int] = []
    thumbnails = np.stack([make_thumbnail(read_image(path)) for path in test])
    found = near_copies(test, thumbnails, learned, folder, threads=2, advance=advanced.append, sample_bits=16)
    assert sum(advanced) == len(learned)
    return found


def test_they_are_found_the_closest_first(test: list[Path], train: list[Path], tmp_path: Path) -> None:
    assert looked(test, train, train, tmp_path) == NearCopies(
        ["test/dent/b.png ~ train/good/07.png", "test/good/c.jpg ~ train/good/03.png"], 30
    )


def test_only_what_the_version_knows_counts(test: list[Path], train: list[Path], tmp_path: Path) -> None:
    """Images that came into the folder since taught it nothing."""
    without = [path for i, path in enumerate(train) if i != 7]
    assert looked(test, train, without, tmp_path) == NearCopies(["test/good/c.jpg ~ train/good/03.png"], 29)
    assert looked(test, train, [], tmp_path) == looked(test, [], train, tmp_path) == NearCopies([], 0)


def test_usual_distance_is_between_parts(test: list[Path], train: list[Path], tmp_path: Path) -> None:
    """Names of test images need not tell a part, and a single part has no others."""
    (tmp_path / PARTS).write_text(r"^(\d)\d")
    assert len(looked(test, train, train, tmp_path).pairs) == 2
    (tmp_path / PARTS).write_text(r"\d\d\.(png)$")
    assert looked(test, train, train, tmp_path) == NearCopies([], 0)
    (tmp_path / PARTS).write_text("(")
    with pytest.raises(PartsError):
        looked(test, train, train, tmp_path)
