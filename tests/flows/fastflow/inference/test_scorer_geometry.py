"""Scores and maps of images of any size: padded, in tiles, with margins, and all in one batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.fastflow.bundle.models_folder import resolve
from flows.fastflow.config import Geometry, ScoreRule
from flows.fastflow.detector import Detector
from flows.fastflow.inference import scorer as module
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.model.fused import FusedHead
from flows.fastflow.scoring.map_and_score import anomaly_map, image_score, pixel_energies

Pictures = dict[str, list[NDArray[np.uint8]]]
RULE = ScoreRule(top_fraction=0.05)


@pytest.fixture(scope="module")
def trained(tiny_bundle_store: Path) -> Scorer:
    return Detector.load(resolve(tiny_bundle_store, "tiny"), device="cpu").scorer


def scorer(trained: Scorer, geometry: Geometry) -> Scorer:
    return Scorer(trained.extractor, trained.head, (64, 64), RULE, geometry=geometry)


def texture(height: int, width: int) -> NDArray[np.uint8]:
    """A smooth image without edges, the same at every place wherever it is cut."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grey = 120 + 30 * np.sin(x / 7 + y / 11) + 20 * np.sin(x / 5 - y / 9)
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


def test_padding_scores_the_pixels_of_the_image_alone(trained: Scorer, tiny_pictures: Pictures) -> None:
    image = tiny_pictures["defect"][0][:32]
    model = scorer(trained, Geometry(fit="pad"))
    [tile] = model.prepare(image).tiles()
    with torch.inference_mode():
        energies = FusedHead(model.head)(model.features([tile]))
        q = pixel_energies(energies.flow, energies.gaussian, RULE, (64, 64))[:, :, 16:48]
    flow, both = q.chunk(2, 1)
    [found] = model.score([image])
    assert found.score_map.shape == (32, 64)
    assert found.score == pytest.approx(float(image_score(flow, RULE, energies.image)), rel=1e-6)
    np.testing.assert_allclose(found.score_map, anomaly_map(both, RULE)[0].numpy(), rtol=1e-6)


def test_the_strangest_tile_speaks_for_the_whole_image(trained: Scorer, tiny_pictures: Pictures) -> None:
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
        picture = FusedHead(trained.head)(with_it.features(tiles)).image
    strangest = picture.amax(0)
    looks = slice(0, 2)  # of the image Gaussian; its cells see one place
    assert (strangest > 1.5 * picture.median(0).values)[looks].all()
    [one], [other] = with_it.score([image]), without.score([image])
    assert one.score - other.score == pytest.approx(float((strangest / 0.01).log1p().sum()), rel=1e-4)


@pytest.mark.parametrize(
    "geometry",
    [Geometry(fit="pad", margin=8), Geometry(fit="tile"), Geometry(fit="tile", working_size=100, margin=8)],
    ids=["pad", "tile", "working size"],
)
def test_images_of_mixed_sizes_are_scored_together_as_alone(trained: Scorer, geometry: Geometry) -> None:
    model = scorer(trained, geometry)
    images = [texture(*size) for size in [(64, 64), (30, 100), (150, 70), (200, 240), (9, 9)]]
    for image, together in zip(images, model.score(images), strict=True):
        [alone] = model.score([image])
        assert together.score == pytest.approx(alone.score, rel=1e-5)
        assert together.statistics == pytest.approx(alone.statistics, rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(together.score_map, alone.score_map, rtol=1e-4, atol=1e-5)


def test_chunks_of_tiles_give_the_same_score(trained: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_layouts_and_regions_must_be_those_of_the_maps(trained: Scorer) -> None:
    model = scorer(trained, Geometry(fit="tile"))
    prepared = model.prepare(texture(100, 64))
    maps = model.features(prepared.tiles())
    assert len(maps[0]) == 2
    with pytest.raises(ValueError, match="expected 2 tiles of 1 images; got 1"):
        model.score_features([m[:1] for m in maps], None, [prepared.layout])
    with pytest.raises(ValueError, match="a region or None for each of 1 images; got 2"):
        model.score_features(maps, [None, None], [prepared.layout])
    with pytest.raises(ValueError, match="a region or None for each of 1 images; got 0"):
        model.score_prepared([prepared], [])
