"""The feature cache: keyed by content, whole or not there, and equal to what the backbone gives."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from flows.fastflow.backbones import find_weights
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.fit_pictures import fingerprint
from flows.fastflow.geometry import Geometry
from flows.fastflow.images import ImageError, read
from flows.fastflow.plain_files import file_hashes
from flows.fastflow.resizing import resize
from flows.fastflow.weights import Weights, digest
from tests.app.full_disk import files_of_at_most
from tests.training.pins import pins
from training.augment import AugmentError, Variant
from training.cache_folder import GIB, CacheFolder
from training.datasets.sample import DatasetError
from training.feature_cache import FeatureCache, Features, View
from training.tiles import Tile, choose

SIZE = (64, 48)
STRETCH = Geometry()


class Killed(BaseException):
    """Stands for SIGKILL, which no `except Exception` sees."""


class CountingExtractor(FeatureExtractor):
    """The backbone itself, which also counts the pictures it was shown."""

    pictures = 0

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        self.pictures += len(images)
        return super().forward(images)


@pytest.fixture(scope="module")
def weights() -> Weights:
    return find_weights("tf_efficientnet_lite0")


@pytest.fixture
def extractor(weights: Weights) -> CountingExtractor:
    return CountingExtractor(weights, (1, 2))


@pytest.fixture
def paths(tiny_data: Path, tmp_path: Path) -> list[Path]:
    """Five pictures of the test's own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    originals = sorted((tiny_data / "tiny/train/good").iterdir())[:5]
    return [Path(shutil.copy(path, folder)) for path in originals]


def cache_of(
    folder: Path,
    extractor: FeatureExtractor,
    views: list[View],
    *,
    size: tuple[int, int] = SIZE,
    batch_size: int = 2,
    geometry: Geometry = STRETCH,
    sample_bits: int = 16,
) -> FeatureCache:
    return FeatureCache(
        CacheFolder(folder, GIB),
        extractor,
        views,
        input_size=size,
        batch_size=batch_size,
        geometry=geometry,
        sample_bits=sample_bits,
    )


def views_of(paths: list[Path]) -> list[View]:
    """The pictures as they are."""
    return [View(*picture, i) for i, picture in enumerate(pins(paths))]


def cached(
    folder: Path,
    extractor: FeatureExtractor,
    paths: list[Path],
    *,
    size: tuple[int, int] = SIZE,
    advance: Callable[[int], None] = lambda _: None,
    geometry: Geometry = STRETCH,
    tiles: list[Tile] | None = None,
) -> Features:
    hashes = file_hashes(paths)
    rows = tiles or [Tile(i, 0) for i in range(len(paths))]
    views = [View(paths[t.picture], hashes[t.picture], t.picture, None, t.number) for t in rows]
    cache = cache_of(folder, extractor, views, size=size, geometry=geometry)
    with cache.features(advance) as features:
        return features


def test_tiles_are_rows_and_another_geometry_is_another_cache(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    """Pictures of 64 x 64: padded they fill the input otherwise, and in tiles of 48 columns they are two."""
    folder = tmp_path / "cache"
    tile = Geometry(fit="tile")
    tiles = choose(pins(paths), tile, SIZE, extractor.strides, 16)
    assert [t.picture for t in tiles] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    done: list[int] = []
    for _ in range(2):  # computed, then found
        found = cached(folder, extractor, paths, advance=done.append, geometry=tile, tiles=tiles)
    assert done == [2, 2, 2, 2, 2, 10]
    for row, (picture, number) in enumerate(tiles):
        prepared = tile.layout((64, 64), SIZE, extractor.strides).prepare(read(paths[picture]))
        maps = extractor(torch.from_numpy(prepared.tiles()[number][None].copy()))
        for array, wanted in zip(found, maps, strict=True):
            np.testing.assert_allclose(array[row], wanted[0].numpy(), rtol=1e-4, atol=1e-4)
    cached(folder, extractor, paths)
    cached(folder, extractor, paths, geometry=Geometry(fit="pad"))
    assert len(visible(folder)) == 3


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_features_are_what_the_backbone_gives(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    found = cached(tmp_path / "cache", extractor, paths)
    assert [a.shape for a in found] == [(5, 24, 16, 12), (5, 40, 8, 6)]
    for i, path in enumerate(paths):
        maps = extractor(torch.from_numpy(resize(read(path), SIZE)[None]))
        for array, wanted in zip(found, maps, strict=True):
            np.testing.assert_allclose(array[i], wanted[0].numpy(), rtol=1e-4, atol=1e-4)


def test_features_are_read_from_disk_and_cannot_be_changed(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    for _ in range(2):  # computed, then found
        for array in cached(tmp_path / "cache", extractor, paths):
            assert isinstance(array, np.memmap)
            assert array.dtype == np.float32
            assert not array.flags.writeable
    assert extractor.pictures == 5


def test_what_is_found_is_what_was_computed(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    first, second = (cached(tmp_path / "cache", extractor, paths) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_new_name_place_or_time_keeps_the_cache(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    before = cached(tmp_path / "cache", extractor, paths)
    (tmp_path / "moved").mkdir()
    moved = [path.rename(tmp_path / "moved" / f"renamed-{i}.png") for i, path in enumerate(paths)]
    os.utime(moved[0], (0, 0))
    after = cached(tmp_path / "cache", extractor, moved)
    assert extractor.pictures == 5
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_one_changed_byte_renews_the_cache(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    cached(tmp_path / "cache", extractor, paths)
    paths[3].write_bytes(paths[3].read_bytes() + b"\0")  # the picture is the same, the file is not
    cached(tmp_path / "cache", extractor, paths)
    assert extractor.pictures == 10
    assert len(visible(tmp_path / "cache")) == 2


def test_pictures_in_another_order_come_in_that_order(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    forwards = cached(tmp_path / "cache", extractor, paths)
    backwards = cached(tmp_path / "cache", extractor, paths[::-1])
    for a, b in zip(forwards, backwards, strict=True):
        np.testing.assert_allclose(a, b[::-1], rtol=1e-4, atol=1e-4)


def test_fewer_pictures_are_another_cache(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    cached(tmp_path / "cache", extractor, paths)
    assert len(cached(tmp_path / "cache", extractor, paths[:4])[0]) == 4
    assert extractor.pictures == 9


def test_another_size_renews_the_cache(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    cached(tmp_path / "cache", extractor, paths)
    assert cached(tmp_path / "cache", extractor, paths, size=(48, 64))[0].shape == (5, 24, 12, 16)


def test_other_stages_renew_the_cache(
    tmp_path: Path, weights: Weights, extractor: CountingExtractor, paths: list[Path]
) -> None:
    cached(tmp_path / "cache", extractor, paths)
    [array] = cached(tmp_path / "cache", FeatureExtractor(weights, (2,)), paths)
    assert array.shape == (5, 40, 8, 6)


def test_other_weights_of_the_same_name_renew_the_cache(
    tmp_path: Path, weights: Weights, extractor: CountingExtractor, paths: list[Path]
) -> None:
    before = cached(tmp_path / "cache", extractor, paths)
    state = dict(weights.state)
    state["conv_stem.weight"] = state["conv_stem.weight"] * 1.1
    tuned = FeatureExtractor(replace(weights, state=state, sha256=digest(state)), (1, 2))
    after = cached(tmp_path / "cache", tuned, paths)
    assert not np.allclose(before[0], after[0])


def test_progress_counts_every_picture_once(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    for _ in range(2):
        steps: list[int] = []
        cached(tmp_path / "cache", extractor, paths, advance=steps.append)
        assert sum(steps) == 5


def kill(steps: int) -> None:
    raise Killed


def test_an_interrupted_computation_leaves_nothing(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    with pytest.raises(Killed):
        cached(tmp_path / "cache", extractor, paths, advance=kill)
    assert visible(tmp_path / "cache") == hidden(tmp_path / "cache") == []


def test_a_killed_computation_leaves_nothing_visible_and_the_next_clears_up(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL gives no time to clear up, so here nothing does: what was begun stays, under a hidden name."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(Killed):
        cached(folder, extractor, paths, advance=kill)
    monkeypatch.undo()
    assert visible(folder) == []
    assert len(hidden(folder)) == 1

    found = cached(folder, extractor, paths)
    assert extractor.pictures == 2 + 5
    assert [len(a) for a in found] == [5, 5]
    assert len(visible(folder)) == 1
    assert hidden(folder) == []


def test_two_runs_at_once_both_get_their_features(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    """A second run begins when the first is half through, and overtakes it."""
    overtaken: list[Features] = []

    def overtake(steps: int) -> None:
        if not overtaken:
            overtaken.append([])
            overtaken[0] = cached(tmp_path / "cache", extractor, paths)

    found = cached(tmp_path / "cache", extractor, paths, advance=overtake)
    assert extractor.pictures == 10
    assert all(np.array_equal(a, b) for a, b in zip(found, overtaken[0], strict=True))
    assert len(visible(tmp_path / "cache")) == 1
    assert hidden(tmp_path / "cache") == []


def test_a_picture_that_cannot_be_read_is_named_and_leaves_nothing(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    paths[4].write_bytes(paths[4].read_bytes()[:200])
    with pytest.raises(ImageError, match=paths[4].name):
        cached(tmp_path / "cache", extractor, paths)
    assert visible(tmp_path / "cache") == hidden(tmp_path / "cache") == []


def test_a_picture_that_was_changed_since_is_named_and_no_cache_vouches_for_it(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    """It would be found in every later run of the picture that was hashed."""
    views, original = views_of(paths), paths[3].read_bytes()
    paths[3].write_bytes(paths[0].read_bytes())
    cache = cache_of(tmp_path / "cache", extractor, views)
    with pytest.raises(DatasetError, match=f"{paths[3].name} was changed"), cache.features(lambda _: None):
        pass
    assert not cache.there
    assert visible(tmp_path / "cache") == hidden(tmp_path / "cache") == []
    paths[3].write_bytes(original)
    with cache_of(tmp_path / "cache", extractor, views).features(lambda _: None) as found:
        expected = cached(tmp_path / "other", extractor, paths)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_picture_that_is_gone_since_is_named_and_leaves_nothing(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    cache = cache_of(tmp_path / "cache", extractor, views_of(paths))
    paths[3].unlink()
    with pytest.raises(DatasetError, match=f"{paths[3].name}: No such"), cache.features(lambda _: None):
        pass
    assert visible(tmp_path / "cache") == hidden(tmp_path / "cache") == []


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(OSError, match="cache"):
        cached(tmp_path / "cache", extractor, paths)


@pytest.mark.parametrize("left", [0, 40, 200], ids=["nothing", "half a header", "too little"])
def test_what_a_failing_disk_has_taken_is_computed_again(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path], left: int
) -> None:
    folder = tmp_path / "cache"
    before = [array.copy() for array in cached(folder, extractor, paths)]
    [name] = visible(folder)
    os.truncate(folder / name / "scale_1.npy", left)
    after = cached(folder, extractor, paths)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert extractor.pictures == 2 * len(paths)
    assert visible(folder) == [name]
    assert hidden(folder) == []


def test_a_file_of_another_shape_is_no_cache(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    folder = tmp_path / "cache"
    before = [array.copy() for array in cached(folder, extractor, paths)]
    [name] = visible(folder)
    np.save(folder / name / "scale_0.npy", before[0][:3])
    after = cached(folder, extractor, paths)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_fingerprint_depends_on_the_set_of_files_alone() -> None:
    one, two, three = "1" * 64, "2" * 64, "3" * 64
    assert fingerprint([one, two]) == fingerprint([two, one])
    assert len({fingerprint(x) for x in ([one], [one, two], [one, three], [one, one, two])}) == 4


def test_changed_copies_have_features_of_their_own(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    first, second = views_of(paths[:2])
    views = [first, replace(first, variant=Variant(mirrored=True)), second]
    cache = cache_of(tmp_path, extractor, views)
    mirrored = torch.from_numpy(resize(np.ascontiguousarray(read(paths[0])[:, ::-1]), SIZE)[None])
    with cache.features(lambda _: None) as found:
        for array, wanted in zip(found, extractor(mirrored), strict=True):
            assert len(array) == 3
            np.testing.assert_allclose(array[1], wanted[0].numpy(), rtol=1e-4, atol=1e-4)


def test_other_changes_are_another_cache(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    def name(*variants: Variant | None) -> str:
        views = [View(paths[0], "a", 0, variant) for variant in variants]
        return cache_of(tmp_path, extractor, views).name

    made = [name(None), name(None, None), name(Variant(degrees=1)), name(Variant(degrees=2))]
    assert len(set(made)) == 4
    assert name(Variant(degrees=1)) == made[2]


def test_samples_of_12_bits_are_seen_as_their_upper_8_and_cached_apart(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    found = {}
    for bits in (12, 16):
        for path in paths:
            grey = read(path)[..., 0].astype(np.uint16)
            cv2.imwrite(str(path), grey << (bits - 8) | 7)
        views = views_of(paths)
        cache = cache_of(tmp_path / "c", extractor, views, sample_bits=bits)
        assert cache.name != cache_of(tmp_path / "c", extractor, views, sample_bits=28 - bits).name
        with cache.features(lambda _: None) as features:
            found[cache.name] = [np.array(array) for array in features]
        for path in paths:  # as it was, in 8 bits
            cv2.imwrite(str(path), read(path, sample_bits=bits))
    (deep, full) = found.values()
    assert [np.array_equal(a, b) for a, b in zip(deep, full, strict=True)] == [True] * len(deep)


def test_a_picture_that_cannot_be_changed_so_is_named(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    cv2.imwrite(str(paths[1]), np.zeros((40, 60, 3), np.uint8))
    views = [replace(view, variant=Variant(quarter_turns=1)) for view in views_of(paths)]
    cache = cache_of(tmp_path / "c", extractor, views, batch_size=1)
    with pytest.raises(AugmentError, match=r"001\.png: .*60x40"), cache.features(lambda _: None):
        pass
    assert visible(tmp_path / "c") == hidden(tmp_path / "c") == []


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    with files_of_at_most(20_000), pytest.raises(OSError, match="File too large"):
        cached(tmp_path / "cache", extractor, paths)
    assert visible(tmp_path / "cache") == hidden(tmp_path / "cache") == []


def test_the_first_batch_need_not_be_computed_again(
    tmp_path: Path, extractor: CountingExtractor, paths: list[Path]
) -> None:
    cache = cache_of(tmp_path, extractor, views_of(paths))
    first = cache.compute(0)
    with cache.features(lambda _: None, first) as found:
        assert all(np.array_equal(a[:2], b) for a, b in zip(found, first, strict=True))
        assert cache.nbytes(first) == sum(a.nbytes for a in found)
    assert extractor.pictures == 5
