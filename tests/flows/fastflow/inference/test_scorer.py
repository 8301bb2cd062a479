"""From images to scores and maps: one path for training and for serving."""

import copy
import gc
import weakref
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.bundle.bundle import FLOW, read_manifest
from flows.fastflow.bundle.models_folder import resolve
from flows.fastflow.config import Geometry, ScoreRule
from flows.fastflow.engines.engine import pick_engine
from flows.fastflow.imaging.region_masks import RegionMasks
from flows.fastflow.inference.scorer import Scorer
from flows.fastflow.model.head import Head
from flows.fastflow.model.learned import LearnedPart
from flows.fastflow.scoring.upsampling import spline_weights

Pictures = dict[str, list[NDArray[np.uint8]]]
STRETCH = Geometry()


def head(store: Path) -> Head:
    bundle = resolve(store, "tiny")
    manifest = read_manifest(bundle)
    gaussian = manifest.gaussian
    made = Head(
        manifest.backbone.channels, manifest.normalisation, manifest.flow, gaussian.sizes, gaussian.cells
    )
    made.load_state_dict(load_file(bundle / FLOW))
    return made


@pytest.fixture(scope="module")
def scorer(tiny_bundle_store: Path, tiny_extractor: FeatureExtractor) -> Scorer:
    return Scorer(tiny_extractor, head(tiny_bundle_store), (64, 64), ScoreRule(), STRETCH)


def scores(scorer: Scorer, pictures: list[NDArray[np.uint8]]) -> list[float]:
    return [scored.score for scored in scorer.score(pictures)]


def gaussian_energies(x: torch.Tensor, state: dict[str, torch.Tensor], name: str, i: int) -> torch.Tensor:
    mean = state[f"{name}.mean_{i}"]
    offset = x - (mean if mean.dim() == 1 else mean.movedim(0, -1))  # of each position
    return (offset @ state[f"{name}.whitening_{i}"]).square().mean(-1) / 2


def test_it_computes_what_the_parts_compute_in_double_precision(
    scorer: Scorer, tiny_bundle_store: Path, tiny_extractor: FeatureExtractor, tiny_pictures: Pictures
) -> None:
    pictures = tiny_pictures["defect"][:3]
    trained = head(tiny_bundle_store).double().eval()
    state = trained.state_dict()
    maps = tiny_extractor(torch.from_numpy(np.stack(pictures)))
    with torch.no_grad():
        features, latents = trained([m.double() for m in maps])
    flow = [z.square().mean(1) / 2 for z in latents]
    positions = [
        gaussian_energies(x.permute(0, 2, 3, 1), state, "gaussian", i) for i, x in enumerate(features)
    ]
    whole = torch.zeros(3, dtype=torch.float64)
    for i, x in enumerate(features):
        described = torch.cat([x.mean((2, 3)), x.std((2, 3), correction=0)], 1)
        whole += (gaussian_energies(described, state, "picture", i) / 0.01).log1p()
    assert trained.cells is not None
    whole += (trained.cells(features[0]) / 0.01).log1p()

    up = torch.nn.Upsample((64, 64), mode="bilinear")
    pixels = torch.cat([up(q[:, None]) for q in flow], 1)
    top = (pixels / 0.01).log1p().mean(1).flatten(1).sort(1, descending=True).values[:, :41].mean(1)
    found = scorer.score(pictures)
    assert [s.score for s in found] == pytest.approx((top + 0.1 * whole).tolist(), rel=1e-4)
    both = [q**0.75 * e**0.25 for q, e in zip(flow, positions, strict=True)]
    splines = [torch.tensor(spline_weights(len(x[0]), 64)).double() for x in both]
    fine, coarse = (w @ x @ w.T for x, w in zip(both, splines, strict=True))
    soft = -(((-3 * fine).exp() + (-3 * coarse).exp()) / 2).log() / 3
    np.testing.assert_allclose(
        [s.score_map for s in found], ((fine + soft) / 2).numpy(), rtol=1e-3, atol=1e-3
    )


@pytest.mark.threads(2)
@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_what_was_fitted_may_go_and_what_computes_stays(
    scorer: Scorer, tiny_pictures: Pictures, kind: Literal["torch", "openvino"]
) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino")
    engine = pick_engine("float32", torch.device("cpu"), kind)
    own = copy.deepcopy(scorer.head)
    one = Scorer(scorer.extractor, own, (64, 64), ScoreRule(), STRETCH, engine)
    fitted = weakref.ref(next(own.flow.parameters()))
    before, held = scores(one, tiny_pictures["good"][:3]), one.nbytes
    one.free_training_head()
    del own
    gc.collect()
    assert fitted() is None
    assert 0.4 * held < one.nbytes < 0.6 * held
    assert scores(one, tiny_pictures["good"][:3]) == before
    one.specialise()
    assert scores(one, tiny_pictures["good"][:3]) == pytest.approx(before, rel=1e-4)


def everything(size: tuple[int, int] = (64, 64)) -> NDArray[np.bool_]:
    return np.ones(size, np.bool_)


def test_defect_is_seen_only_in_a_region_that_holds_it(scorer: Scorer, tiny_pictures: Pictures) -> None:
    """Of pixels alone: a region leaves the whole image's part out, wherever it lies."""
    scorer = Scorer(scorer.extractor, scorer.head, (64, 64), ScoreRule(picture=0), STRETCH)
    features = scorer.features(tiny_pictures["defect"])
    whole = scorer.score_features(features)
    regions = []
    for scored in whole:
        row, column = (int(i) for i in np.unravel_index(scored.score_map.argmax(), (64, 64)))
        regions.append(~everything())
        regions[-1][max(0, row - 14) : row + 15, max(0, column - 14) : column + 15] = True
    inside = scorer.score_features(features, regions)
    outside = scorer.score_features(features, [~region for region in regions])
    for one, seen, hidden, region in zip(whole, inside, outside, regions, strict=True):
        assert hidden.score < 0.9 * one.score
        assert seen.score <= one.score
        assert seen.score == pytest.approx(one.score, rel=0.02)
        np.testing.assert_array_equal(seen.score_map, np.where(region, one.score_map, 0))
        assert seen.statistics == one.statistics


def learned(scorer: Scorer, geometry: Geometry = STRETCH) -> Scorer:
    """The scorer with a learned part that no defects taught."""
    own = copy.deepcopy(scorer.head)
    own.learned = LearnedPart(scorer.extractor.channels)
    own.learned.weights.normal_(generator=torch.Generator().manual_seed(0))
    own.learned.bias.fill_(2)
    return Scorer(scorer.extractor, own, (64, 64), ScoreRule(), geometry)


@pytest.mark.parametrize("geometry", [STRETCH, Geometry(fit="tile")], ids=["whole", "tiles"])
def test_learned_part_is_added_to_score_and_image_part(
    scorer: Scorer, tiny_pictures: Pictures, geometry: Geometry
) -> None:
    plain = Scorer(scorer.extractor, scorer.head, (64, 64), ScoreRule(), geometry, describes=True)
    model = learned(scorer, geometry)
    part = model.head.learned
    assert part is not None
    images = [*tiny_pictures["good"][:2], np.tile(tiny_pictures["defect"][0], (1, 2, 1))]
    for found, without in zip(model.score(images), plain.score(images), strict=True):
        assert found.description is not None
        np.testing.assert_array_equal(found.description, without.description)
        added = float(part(torch.from_numpy(found.description)[None]))
        assert abs(added) > 0.1
        assert found.score == without.score + added
        assert (found.learned_part, without.learned_part) == (added, 0)
        assert without.image_part is not None
        assert found.image_part == without.image_part + added


@pytest.mark.parametrize("has_learned", [False, True], ids=["plain", "learned"])
def test_region_excludes_the_whole_image_part(
    scorer: Scorer, tiny_pictures: Pictures, has_learned: bool
) -> None:
    if has_learned:
        scorer = learned(scorer)
    bare = copy.deepcopy(scorer.head)
    bare.learned = None
    pixels = Scorer(scorer.extractor, bare, (64, 64), ScoreRule(picture=0), STRETCH)
    features = scorer.features(tiny_pictures["defect"])
    but_a_corner = everything()
    but_a_corner[0, 0] = False
    n = len(tiny_pictures["defect"])
    whole, all_of_it, alone = (
        [s.score for s in model.score_features(features, regions)]
        for model, regions in ((scorer, None), (scorer, [everything()] * n), (pixels, None))
    )
    most = scorer.score_features(features, [but_a_corner] * n)
    assert all_of_it == whole
    assert [s.score for s in most] == pytest.approx(alone, rel=1e-3)
    assert [s.image_part for s in most] == [None] * n
    assert all(one != other for one, other in zip(alone, whole, strict=True))
    added = scorer.score_features(features, [everything()] * n)
    # To the last bit, or an image would not have the rank that it has itself among those of a calibration.
    differences = [s.score - s.image_part for s in added if s.image_part is not None]
    assert differences == alone


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ([None], "a region or None for each of 2 images; got 1"),
        ([None] * 3, "a region or None for each of 2 images; got 3"),
        ([], "got 0"),
        (
            [None, everything((32, 64))],
            r"bool of the size of the map, \(64, 64\); got bool of shape \(32, 64\)",
        ),
        ([None, everything()[None]], r"shape \(1, 64, 64\)"),
        ([everything().astype(np.uint8), None], r"got uint8 of shape \(64, 64\)"),
        ([None, ~everything()], "a region without a pixel would pass every part"),
    ],
)
def test_wrong_region_is_refused_before_anything_is_computed(
    scorer: Scorer, tiny_pictures: Pictures, regions: RegionMasks, message: str
) -> None:
    features = scorer.features(tiny_pictures["good"][:2])
    with pytest.raises(ValueError, match=message):
        scorer.score_features(features, regions)


def test_statistics_are_the_moments_of_the_normalised_features(
    scorer: Scorer, tiny_pictures: Pictures
) -> None:
    pictures = tiny_pictures["good"][:3]
    normalised = scorer.head.normaliser(scorer.features(pictures))
    for i, scored in enumerate(scorer.score(pictures)):
        expected = [f(x[i].double().numpy()) for x in normalised for f in (np.mean, np.std)]
        assert scored.statistics == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert len(scored.statistics) == 4
        # Normalised by such images: near a mean of 0 and a deviation of 1.
        assert scored.statistics == pytest.approx([0, 1, 0, 1], abs=0.5)


def test_nan_energies_are_an_error(scorer: Scorer, tiny_pictures: Pictures) -> None:
    maps = [m.clone() for m in scorer.features(tiny_pictures["good"][:2])]
    maps[-1][1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="energies of an image are not numbers"):
        scorer.score_features(maps)
