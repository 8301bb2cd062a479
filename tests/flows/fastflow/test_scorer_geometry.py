"""Scores and maps of pictures of any size: padded, in tiles, with margins, and all in one batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.fastflow import scorer as module
from flows.fastflow.detector import Detector
from flows.fastflow.fused import FusedHead
from flows.fastflow.geometry import Geometry
from flows.fastflow.models_folder import resolve
from flows.fastflow.resizing import resize
from flows.fastflow.score import ScoreRule, anomaly_map, image_score, pixel_energies
from flows.fastflow.scorer import Scorer

Pictures = dict[str, list[NDArray[np.uint8]]]
RULE = ScoreRule(top_fraction=0.05)


@pytest.fixture(scope="module")
def trained(tiny_bundle_store: Path) -> Scorer:
    return Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu").scorer


def scorer(trained: Scorer, geometry: Geometry) -> Scorer:
    return Scorer(trained.extractor, trained.head, (64, 64), RULE, geometry=geometry)


def texture(height: int, width: int) -> NDArray[np.uint8]:
    """A smooth picture without edges, the same at every place wherever it is cut."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grey = 120 + 30 * np.sin(x / 7 + y / 11) + 20 * np.sin(x / 5 - y / 9)
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


def test_padding_scores_the_pixels_of_the_picture_alone(trained: Scorer, tiny_pictures: Pictures) -> None:
    image = tiny_pictures["defect"][0][:32]
    model = scorer(trained, Geometry(fit="pad"))
    [tile] = model.prepare(image).tiles()
    with torch.inference_mode():
        energies = FusedHead(model.head)(model.features([tile]))
        q = pixel_energies(energies.flow, energies.gaussian, RULE, (64, 64))[:, :, 16:48]
    flow, both = q.chunk(2, 1)
    [found] = model.score([image])
    assert found.score_map.shape == (32, 64)
    assert found.score == pytest.approx(float(image_score(flow, RULE, energies.picture)), rel=1e-6)
    np.testing.assert_allclose(found.score_map, anomaly_map(both, RULE)[0].numpy(), rtol=1e-6)


def test_a_picture_that_fills_one_tile_by_its_scale_is_seen_whole(
    trained: Scorer, tiny_pictures: Pictures
) -> None:
    """Alone, beside others of its size, and beside those of several tiles; also in a region."""
    images = [resize(image, (128, 128)) for image in tiny_pictures["defect"][:2]]
    tiles = scorer(trained, Geometry(fit="tile", scale=0.5))
    wanted = scorer(trained, Geometry()).score(images)
    corner = np.zeros((64, 64), np.bool_)
    corner[40:, 20:] = True
    maps = tiles.features([tile for image in images for tile in tiles.prepare(image).tiles()])
    in_region = scorer(trained, Geometry()).score_features(maps, [corner, None])
    mixed = [*images, texture(200, 300)]
    for one, two, three in zip(wanted, tiles.score(images), tiles.score(mixed), strict=False):
        assert one.score == two.score == pytest.approx(three.score, rel=1e-6)
        np.testing.assert_array_equal(one.score_map, two.score_map)
    prepared = [tiles.prepare(image) for image in mixed]
    assert len(prepared[0].layout) == 1
    found = tiles.score_prepared(prepared[:2], [corner, None])
    assert [s.score for s in found] == pytest.approx([s.score for s in in_region], rel=1e-6)


def test_the_strangest_tile_speaks_for_the_whole_picture(trained: Scorer, tiny_pictures: Pictures) -> None:
    """One part of another shade among many is as strange as alone."""
    image = np.tile(tiny_pictures["good"][0], (1, 8, 1))
    image[:, 192:256] //= 3
    tile = Geometry(fit="tile")
    with_it, without = (
        Scorer(trained.extractor, trained.head, (64, 64), ScoreRule(picture=weight), geometry=tile)
        for weight in (1, 0)
    )
    tiles = with_it.prepare(image).tiles()
    assert len(tiles) > 5
    with torch.inference_mode():
        picture = FusedHead(trained.head)(with_it.features(tiles)).picture
    strangest = picture.amax(0)
    assert (strangest > 1.5 * picture.median(0).values).all()
    [one], [other] = with_it.score([image]), without.score([image])
    assert one.score - other.score == pytest.approx(float((strangest / 0.01).log1p().sum()), rel=1e-4)


@pytest.mark.parametrize(
    "geometry",
    [Geometry(fit="pad", margin=8), Geometry(fit="tile"), Geometry(fit="tile", working_size=100, margin=8)],
    ids=["pad", "tile", "working size"],
)
def test_pictures_of_mixed_sizes_are_scored_together_as_alone(trained: Scorer, geometry: Geometry) -> None:
    model = scorer(trained, geometry)
    images = [texture(*size) for size in [(64, 64), (30, 100), (150, 70), (200, 240), (9, 9)]]
    for image, together in zip(images, model.score(images), strict=True):
        [alone] = model.score([image])
        assert together.score == pytest.approx(alone.score, rel=1e-5)
        assert together.statistics == pytest.approx(alone.statistics, rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(together.score_map, alone.score_map, rtol=1e-4, atol=1e-5)


def test_many_tiles_are_computed_a_chunk_at_a_time_to_the_same_score(
    trained: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = scorer(trained, Geometry(fit="tile"))
    image = texture(300, 300)
    half = np.zeros((300, 300), np.bool_)
    half[:150] = True
    n = len(model.layout((300, 300)))
    assert n > 16
    prepared = [model.prepare(texture(64, 64)), model.prepare(image), model.prepare(image)]
    whole = model.score_prepared(prepared, [None, None, half])
    rows: list[int] = []
    features = Scorer.features

    def counted(self: Scorer, tiles: list[NDArray[np.uint8]]) -> list[torch.Tensor]:
        rows.append(len(tiles))
        return features(self, tiles)

    monkeypatch.setattr(Scorer, "features", counted)
    monkeypatch.setattr(module, "_CHUNK_PIXELS", 7 * 64 * 64)
    assert model.chunk == 7
    chunks = model.score_prepared(prepared, [None, None, half])
    assert max(rows) == 7
    assert sum(rows) == 1 + 2 * n
    for one, two in zip(whole, chunks, strict=True):
        assert one.score == pytest.approx(two.score, rel=1e-5)
        assert one.statistics == pytest.approx(two.statistics, rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(one.score_map, two.score_map, rtol=1e-4, atol=1e-5)
    assert whole[2].score < whole[1].score
    assert not chunks[2].score_map[150:].any()


def test_the_map_of_tiles_shows_no_seam(trained: Scorer) -> None:
    """Where tiles begin and end it is as smooth as elsewhere; laid side by side, the tiles' maps are not."""
    model = scorer(trained, Geometry(fit="tile", overlap=0.5))
    image = texture(64, 400)
    layout = model.layout((64, 400))
    assert len(layout) > 8
    [found] = model.score([image])
    prepared = layout.prepare(image)
    apart = [s.score_map for s in scorer(trained, Geometry()).score(prepared.tiles())]
    step = layout.lefts[1]
    beside = np.concatenate([m[:, :step] for m in apart], 1)

    def steps(score_map: NDArray[np.float32], edges: list[int]) -> float:
        """Mean change over the edges, over that of everywhere."""
        slope = np.abs(np.diff(score_map.astype(np.float64), axis=1))
        return float(slope[:, [edge - 1 for edge in edges]].mean() / slope.mean())

    edges = [left - layout.before[1] for left in layout.lefts[1:]]
    edges += [left + 64 - layout.before[1] for left in layout.lefts[:-1]]
    assert steps(found.score_map, [edge for edge in edges if 0 < edge < 400]) < 1.5
    assert steps(beside, list(layout.lefts[1:])) > 3


def test_a_small_defect_counts_as_much_in_a_large_picture(trained: Scorer, tiny_pictures: Pictures) -> None:
    """The score averages the pixels of one tile's share, however many tiles there are."""
    model = scorer(trained, Geometry(fit="tile"))
    defect, good = tiny_pictures["defect"][0], tiny_pictures["good"][0]
    large = np.tile(good, (5, 5, 1))
    before = model.score([large])[0].score
    large[128:192, 128:192] = defect
    [alone], [found] = model.score([defect]), model.score([large])
    assert found.score > before
    assert found.score > 0.9 * alone.score
    k = round(model.rule_for((320, 320)).top_fraction * 320 * 320)
    assert k == round(RULE.top_fraction * 64 * 64)
    assert model.rule_for((32, 64)) == RULE  # of fewer pixels, the same share


@pytest.mark.parametrize("size", [(64, 64), (32, 63)])
def test_a_region_must_have_the_size_of_the_map(trained: Scorer, size: tuple[int, int]) -> None:
    model = scorer(trained, Geometry(fit="pad"))
    region = np.ones(size, np.bool_)
    with pytest.raises(ValueError, match=r"of the size of the map, \(32, 64\); got bool of shape"):
        model.score_prepared([model.prepare(texture(40, 80))], [region])


def test_layouts_and_regions_must_be_those_of_the_maps(trained: Scorer) -> None:
    model = scorer(trained, Geometry(fit="tile"))
    prepared = model.prepare(texture(100, 64))
    maps = model.features(prepared.tiles())
    assert len(maps[0]) == 2
    with pytest.raises(ValueError, match="expected 2 tiles of 1 pictures; got 1"):
        model.score_features([m[:1] for m in maps], None, [prepared.layout])
    with pytest.raises(ValueError, match="a region or None for each of 1 pictures; got 2"):
        model.score_features(maps, [None, None], [prepared.layout])
    with pytest.raises(ValueError, match="a region or None for each of 1 pictures; got 0"):
        model.score_prepared([prepared], [])
