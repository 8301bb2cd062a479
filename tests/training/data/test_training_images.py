"""The images of a run: listing, split, and augmentation of fitted images only."""

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from flows.fastflow.calibration.images_per_part import PARTS
from tests.conftest import picture, png
from training.config.augmentation import AugmentConfig
from training.config.run_config import RunConfig
from training.data.sample import DatasetError
from training.data.tiles import Tile
from training.data.training_images import find_training_images

CONFIG = RunConfig.model_validate({"calibration": {"fraction": 0.25}})
STOPPING = RunConfig.model_validate(
    {"calibration": {"fraction": 0.25}, "fit": {"stopping": {"fraction": 0.25}}}
)
UNTILED = [Tile(image, 0) for image in range(32)]
CHANGED = AugmentConfig(hflip=True, brightness=0.1, copies=3)
NAMES = ("fit", "calibration", "validation")


def test_each_file_is_there_once_and_copies_are_counted(tiny_data: Path, tmp_path: Path) -> None:
    good = shutil.copytree(tiny_data / "tiny/train/good", tmp_path / "tiny/train/good")
    shutil.copy(good / "003.png", good / "copy.png")
    images = find_training_images(CONFIG, tmp_path, "tiny")
    assert images.copies == 1
    assert [path.name for path in images.paths] == [f"{i:03}.png" for i in range(32)]
    assert len(set(images.hashes)) == 32


# Images of one tile, of three, of five, and so on again.
TILES = [Tile(image, number) for image in range(32) for number in range(1 + 2 * (image % 3))]


@pytest.mark.parametrize("tiles", [UNTILED, TILES], ids=["untiled", "tiled"])
@pytest.mark.parametrize("augment", [AugmentConfig(), CHANGED], ids=["plain", "changed"])
@pytest.mark.parametrize("stopping", [None, {"fraction": 0.2}], ids=["fixed", "stopping"])
def test_views_are_split_like_their_image(
    tiny_data: Path, tiles: list[Tile], augment: AugmentConfig, stopping: dict[str, float] | None
) -> None:
    calibration = {"fraction": 0.25}
    config = RunConfig.model_validate({"calibration": calibration, "fit": {"stopping": stopping}})
    images = find_training_images(config, tiny_data, "tiny")
    views = images.views(augment, 0, tiles)
    assert len(set(views)) == len(views)
    # Tiles of an image lie in a row, so that it is read once.
    order = [(view.image, view.variant) for view in views]
    assert len(set(order)) == 1 + sum(a != b for a, b in pairwise(order))
    own, part = images.rows(views), images.split
    copies = 3 if augment == CHANGED else 0
    tiles_of = np.bincount([tile.image for tile in tiles])
    seen_by = {name: {views[i].image for i in getattr(own, name)} for name in NAMES}
    assert seen_by == {name: set(getattr(part, name).tolist()) for name in NAMES}
    assert bool(seen_by["validation"]) == (stopping is not None)
    assert sum(map(len, seen_by.values())) == len(set().union(*seen_by.values())) == 32
    # Of those to fit all tiles and all copies, of others all tiles as they are.
    assert len(own.fit) == (1 + copies) * tiles_of[part.fit].sum()
    for name in ("calibration", "validation"):
        assert len(getattr(own, name)) == tiles_of[getattr(part, name)].sum()
        assert all(views[i].variant is None for i in getattr(own, name))
    assert images.held_out == [images.paths[i] for i in part.calibration]


class TestParts:
    @pytest.fixture
    def data(self, tiny_data: Path, tmp_path: Path) -> Path:
        """The 32 good images as four of each of eight parts."""
        good = tmp_path / "tiny/train/good"
        good.mkdir(parents=True)
        for i, path in enumerate(sorted((tiny_data / "tiny/train/good").iterdir())):
            shutil.copy(path, good / f"part{i % 8}_{i // 8}.png")
        (tmp_path / "tiny" / PARTS).write_text(r"^(.+)_\d")
        return tmp_path

    def test_no_part_is_on_both_sides(self, data: Path) -> None:
        images = find_training_images(STOPPING, data, "tiny")
        part = images.split
        shown = {name: {images.paths[i].name[:5] for i in getattr(part, name)} for name in NAMES}
        assert [len(shown[name]) for name in NAMES] == [4, 2, 2]
        assert set.union(*shown.values()) == {f"part{i}" for i in range(8)}
        assert (len(part.fit), len(part.calibration), len(part.validation)) == (16, 2, 8)
        assert images.part_count == 8
        assert (images.record.n_fit, images.record.n_calibration) == (24, 2)
        assert images.held_out == [images.paths[i] for i in part.calibration]

    def test_other_images_of_held_out_parts_are_not_used(self, data: Path) -> None:
        images = find_training_images(CONFIG, data, "tiny")
        part = images.split
        apart = {images.paths[i].name[:5] for i in part.calibration}
        assert {images.paths[i].name for i in images.not_fitted} == {
            path.name for path in images.paths if path.name[:5] in apart
        }
        assert len(images.not_fitted) == 8
        views = images.views(AugmentConfig(), 0, UNTILED)
        assert {view.image for view in views} == {*part.fit.tolist(), *part.calibration.tolist()}
        rows = images.rows(views)
        assert [views[row].image for row in rows.calibration] == part.calibration.tolist()

    def test_copies_of_different_parts_are_refused(self, data: Path) -> None:
        good = data / "tiny/train/good"
        shutil.copy(good / "part0_0.png", good / "part3_9.png")
        told = r"part0_0\.png and part3_9\.png are the same file, .* different parts"
        with pytest.raises(DatasetError, match=told):
            find_training_images(CONFIG, data, "tiny")

    def test_copies_without_a_part_name_share_the_part(self, data: Path) -> None:
        good = data / "tiny/train/good"
        (data / "tiny" / PARTS).write_text(r"^(?:(part\d)_)?")
        before = find_training_images(CONFIG, data, "tiny")
        shutil.copy(good / "part0_0.png", good / "000.png")
        shutil.copy(good / "part3_1.png", good / "zzz.png")
        (good / "own.png").write_bytes(png(picture(99)))
        shutil.copy(good / "own.png", good / "own too.png")
        images = find_training_images(CONFIG, data, "tiny")
        assert (len(images.paths), images.copies, images.part_count) == (33, 3, 9)
        shown = dict(zip(images.hashes, images.part_numbers.tolist(), strict=True))
        for part in range(8):
            of_part = [sha for sha, k in zip(before.hashes, before.part_numbers, strict=True) if k == part]
            assert len({shown[sha] for sha in of_part}) == 1
