"""The feature cache: keyed by content, complete or absent, equal to the backbone's output."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.sources import find_weights
from flows.fastflow.backbones.weights import Weights, weights_digest
from flows.fastflow.config import Geometry
from flows.fastflow.imaging.decoder import read_image
from flows.fastflow.imaging.geometry import compute_layout
from flows.fastflow.imaging.resizing import resize
from tests.app.support.full_disk import limit_file_size
from tests.training.pins import pins
from training.data.augment import Variant
from training.data.sample import DatasetError
from training.data.tiles import TrainingTile, choose_tiles
from training.features.cache import GIB, CacheError, FeatureCache, Features

SIZE = (64, 48)


class CountingExtractor(FeatureExtractor):
    """The backbone itself, which also counts the images it was shown."""

    images = 0

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        self.images += len(images)
        return super().forward(images)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return find_weights("tf_efficientnet_lite0")


@pytest.fixture
def extractor(weights: Weights) -> CountingExtractor:
    return CountingExtractor(weights, (1, 2))


@pytest.fixture
def paths(tiny_data: Path, tmp_path: Path) -> list[Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    originals = sorted((tiny_data / "tiny/train/good").iterdir())[:5]
    return [Path(shutil.copy(path, folder)) for path in originals]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def cache_of(
    folder: Path, extractor: FeatureExtractor, views: list[TrainingTile], max_bytes: int = GIB, **changes: Any
) -> FeatureCache:
    settings = {"input_size": SIZE, "batch_size": 2, "geometry": Geometry(), "sample_bits": 16, **changes}
    return FeatureCache(folder, max_bytes, extractor, views, **settings)


def views_of(paths: list[Path]) -> list[TrainingTile]:
    return [TrainingTile(*image, i) for i, image in enumerate(pins(paths))]


def ignore(_: object) -> None:
    """Ignore a message."""


def cached(
    folder: Path,
    extractor: FeatureExtractor,
    paths: list[Path],
    advance: Callable[[int], None] = ignore,
    say: Callable[[str], None] = ignore,
    max_bytes: int = GIB,
) -> Features:
    return cache_of(folder, extractor, views_of(paths), max_bytes).features(advance, say)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def equal(some: Features, others: Features) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


def test_features_are_computed_once_and_memory_mapped(
    folder: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    steps: list[int] = []
    first, second = (cached(folder, extractor, paths, advance=steps.append) for _ in range(2))
    assert extractor.images == 5
    assert steps == [2, 2, 1, 5]
    assert equal(first, second)
    assert [a.shape for a in second] == [(5, 24, 16, 12), (5, 40, 8, 6)]
    assert all(isinstance(a, np.memmap) and not a.flags.writeable for a in second)
    for i, path in enumerate(paths):
        maps = extractor(torch.from_numpy(resize(read_image(path), SIZE)[None]))
        for array, wanted in zip(second, maps, strict=True):
            np.testing.assert_allclose(array[i], wanted[0].numpy(), rtol=1e-4, atol=1e-4)


def test_tiles_of_an_image_are_rows(folder: Path, extractor: CountingExtractor, paths: list[Path]) -> None:
    """Images of 64 x 64: in tiles of 48 columns they are two."""
    tile = Geometry(fit="tile")
    tiles = choose_tiles(pins(paths), tile, SIZE, extractor.strides, 16)
    views = [replace(views_of(paths)[t.image], tile=t.number) for t in tiles]
    found = cache_of(folder, extractor, views, geometry=tile).features(ignore, ignore)
    for row, (image, number) in enumerate(tiles):
        prepared = compute_layout(tile, (64, 64), SIZE, extractor.strides).prepare(read_image(paths[image]))
        maps = extractor(torch.from_numpy(prepared.tiles()[number][None].copy()))
        for array, wanted in zip(found, maps, strict=True):
            np.testing.assert_allclose(array[row], wanted[0].numpy(), rtol=1e-4, atol=1e-4)


def test_changed_copies_have_features_of_their_own(
    folder: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    first, second = views_of(paths[:2])
    views = [first, replace(first, variant=Variant(mirrored=True)), second]
    found = cache_of(folder, extractor, views).features(ignore, ignore)
    mirrored = torch.from_numpy(resize(np.ascontiguousarray(read_image(paths[0])[:, ::-1]), SIZE)[None])
    for array, wanted in zip(found, extractor(mirrored), strict=True):
        np.testing.assert_allclose(array[1], wanted[0].numpy(), rtol=1e-4, atol=1e-4)


def test_new_name_place_or_time_keeps_the_cache(
    folder: Path, extractor: CountingExtractor, paths: list[Path], tmp_path: Path
) -> None:
    before = cached(folder, extractor, paths)
    (tmp_path / "moved").mkdir()
    moved = [path.rename(tmp_path / "moved" / f"renamed-{i}.png") for i, path in enumerate(paths)]
    os.utime(moved[0], (0, 0))
    assert equal(before, cached(folder, extractor, moved))
    assert extractor.images == 5


def test_settings_of_features_decide_the_cache_name(
    folder: Path, weights: Weights, extractor: CountingExtractor, paths: list[Path]
) -> None:
    views = views_of(paths)
    state = dict(weights.state)
    state["conv_stem.weight"] = state["conv_stem.weight"] * 1.1
    tuned = FeatureExtractor(replace(weights, state=state, sha256=weights_digest(state)), (1, 2))
    turned = [replace(views[0], variant=Variant(degrees=degrees)) for degrees in (1, 2)]
    caches = [
        cache_of(folder, extractor, views),
        cache_of(folder, extractor, views[::-1]),
        cache_of(folder, extractor, views[:4]),
        cache_of(folder, extractor, [replace(views[0], sha256="0" * 64), *views[1:]]),
        cache_of(folder, extractor, [turned[0], *views[1:]]),
        cache_of(folder, extractor, [turned[1], *views[1:]]),
        cache_of(folder, extractor, views, input_size=(48, 64)),
        cache_of(folder, extractor, views, geometry=Geometry(fit="pad")),
        cache_of(folder, extractor, views, sample_bits=12),
        cache_of(folder, FeatureExtractor(weights, (2,)), views),
        cache_of(folder, tuned, views),
    ]
    assert len({cache.name for cache in caches}) == len(caches)
    assert cache_of(folder, extractor, views_of(paths)).name == caches[0].name


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit": lambda file: file.write_bytes(bytes([*(data := file.read_bytes())[:-1], data[-1] ^ 1])),
    "cut off": lambda file: os.truncate(file, 200),
    "gone": Path.unlink,
    "another shape": lambda file: np.save(file, np.load(file)[:3]),
    "no checksums": lambda file: file.with_name("sha256.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_features_are_computed_again(
    folder: Path, extractor: CountingExtractor, paths: list[Path], damage: str
) -> None:
    before = [array.copy() for array in cached(folder, extractor, paths)]
    [name] = names(folder)
    DAMAGES[damage](folder / name / "scale_1.npy")
    said: list[str] = []
    assert equal(before, cached(folder, extractor, paths, say=said.append))
    assert extractor.images == 10
    assert names(folder) == [name]
    assert ["damaged or of other images" in line for line in said] == [True]


@pytest.mark.parametrize("how", ["files", "with their checksums"])
def test_features_of_other_images_are_recomputed(
    folder: Path, extractor: CountingExtractor, paths: list[Path], how: str
) -> None:
    """Two caches of as many images, whose files were exchanged: the shapes tell nothing."""
    others = paths[::-1]
    right = [array.copy() for array in cached(folder, extractor, paths)]
    first, second = (cache_of(folder, extractor, views_of(some)).name for some in (paths, others))
    cached(folder, extractor, others)
    files = ["scale_0.npy", "scale_1.npy", *(["sha256.json"] if how != "files" else [])]
    for file in files:
        (folder / first / file).rename(folder / "kept")
        (folder / second / file).rename(folder / first / file)
        (folder / "kept").rename(folder / second / file)
    assert equal(right, cached(folder, extractor, paths))


def test_half_made_cache_is_removed_unless_locked(
    folder: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    left, making = folder / ".left.part", folder / ".making.part"
    for part in (left, making):
        part.mkdir(parents=True)
    with FileLock(making.with_suffix(".lock")):
        cached(folder, extractor, paths)
    assert not left.exists()
    assert making.exists()


def test_interrupted_computation_leaves_nothing(
    folder: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(folder, extractor, paths, advance=interrupt)
    assert names(folder) == []


def test_two_runs_at_once_both_get_their_features(
    folder: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    """A second run begins when the first is half through, and overtakes it."""
    overtaken: list[Features] = []

    def overtake(_: int) -> None:
        if not overtaken:
            overtaken.append([])
            overtaken[0] = cached(folder, extractor, paths)

    assert equal(cached(folder, extractor, paths, advance=overtake), overtaken[0])
    assert len(names(folder)) == 1


def test_changed_image_is_named_despite_the_cache(
    folder: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    """It would be found in every later run of the image that was hashed."""
    cache = cache_of(folder, extractor, views_of(paths))
    paths[3].write_bytes(paths[0].read_bytes())
    with pytest.raises(DatasetError, match=f"{paths[3].name} was changed"):
        cache.features(ignore, ignore)
    assert names(folder) == []


def test_disk_that_fills_up_is_an_error_and_leaves_nothing(
    folder: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    with limit_file_size(20_000), pytest.raises(OSError, match="File too large"):
        cached(folder, extractor, paths)
    assert names(folder) == []


def test_the_least_recently_used_caches_make_room(
    folder: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    """Five images take 132,480 bytes: there is room for two such caches and their headers."""
    room = 2 * 132_480 + 2000
    sets = [paths, paths[::-1], [*paths[1:], paths[0]]]
    ours, theirs, new = (cache_of(folder, extractor, views_of(some)).name for some in sets)
    mapped = cached(folder, extractor, sets[1], max_bytes=room)
    kept = [array.copy() for array in mapped]
    cached(folder, extractor, sets[0], max_bytes=room)
    os.utime(folder / ours, (1, 1))
    os.utime(folder / theirs, (2, 2))
    cached(folder, extractor, sets[0], max_bytes=room)  # uses it, so that it is the latest
    cached(folder, extractor, sets[2], max_bytes=room)
    assert names(folder) == sorted([ours, new])
    assert equal(mapped, kept)  # mapped arrays of a removed cache stay readable


def test_features_larger_than_all_caches_may_be_are_refused(
    folder: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    with pytest.raises(CacheError, match=r"feature_cache\.max_gib allows 0\.00: raise it"):
        cached(folder, extractor, paths, max_bytes=100_000)
