"""From pictures to scores and maps: one path for training and for serving."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from flows.fastflow.bundle import FLOW, read_manifest, resolve
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.images import resize
from flows.fastflow.manifest import Normalisation
from flows.fastflow.model import FlowConfig
from flows.fastflow.score import ScoreRule
from flows.fastflow.scorer import Head, Scorer, channels_last

Pictures = dict[str, list[NDArray[np.uint8]]]


def head(store: Path) -> Head:
    """The trained head of the model "tiny"."""
    bundle = resolve(store, "tiny")
    manifest = read_manifest(bundle)
    made = Head(manifest.backbone.channels, manifest.normalisation, manifest.flow)
    made.load_state_dict(load_file(bundle / FLOW))
    return made


@pytest.fixture(scope="module")
def scorer(tiny_bundle_store: Path, tiny_extractor: FeatureExtractor) -> Scorer:
    return Scorer(tiny_extractor, head(tiny_bundle_store), (64, 64), ScoreRule())


def test_it_computes_what_the_parts_compute_in_double_precision(
    scorer: Scorer, tiny_bundle_store: Path, tiny_extractor: FeatureExtractor, tiny_pictures: Pictures
) -> None:
    """The whole path once more: normalisation, flow, energies, score and map, by formula."""
    pictures = tiny_pictures["defect"][:3]
    trained = head(tiny_bundle_store).double().eval()
    maps = tiny_extractor(torch.from_numpy(np.stack(pictures)))
    with torch.no_grad():
        latents = trained([m.double() for m in maps])
    up = [
        torch.nn.functional.interpolate(
            z.square().mean(1, keepdim=True) / 2, (64, 64), mode="bilinear", align_corners=False
        )
        for z in latents
    ]
    q = torch.cat(up, 1)
    top = (q / 0.01).log1p().mean(1).flatten(1).sort(1, descending=True).values[:, :41].mean(1)
    scores, found = scorer.score(pictures)
    assert scores == pytest.approx(top.tolist(), rel=1e-4)
    np.testing.assert_allclose(found, -(-q).exp().mean(1).log().numpy(), rtol=1e-3, atol=1e-3)


def test_batches_of_one_and_of_eight_agree(scorer: Scorer, tiny_pictures: Pictures) -> None:
    pictures = tiny_pictures["good"]
    together, maps = scorer.score(pictures)
    assert maps.shape == (8, 64, 64)
    assert maps.dtype == np.float32
    alone = [scorer.score([picture])[0][0] for picture in pictures]
    assert together == pytest.approx(alone, rel=1e-5)


def test_pictures_are_resized_one_by_one(scorer: Scorer, tiny_pictures: Pictures) -> None:
    [picture] = tiny_pictures["good"][:1]
    large = resize(picture, (200, 130))
    together, _ = scorer.score([picture, large])
    alone, _ = scorer.score([resize(large, (64, 64))])
    assert together[1] == pytest.approx(alone[0], rel=1e-5)


def test_the_head_is_frozen_and_in_evaluation(scorer: Scorer, tiny_pictures: Pictures) -> None:
    assert not any(p.requires_grad for p in scorer.head.parameters())
    assert not any(m.training for m in scorer.head.modules())
    before = {key: value.clone() for key, value in scorer.head.state_dict().items()}
    scorer.score(tiny_pictures["defect"])
    assert all(torch.equal(before[key], value) for key, value in scorer.head.state_dict().items())


def test_the_layout_of_weights_changes_no_value(tiny_bundle_store: Path) -> None:
    plain, laid_out = head(tiny_bundle_store), channels_last(head(tiny_bundle_store))
    state = laid_out.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.state_dict().items())
    assert any(
        v.ndim == 4 and v.is_contiguous(memory_format=torch.channels_last) and not v.is_contiguous()
        for v in state.values()
    )


def test_two_heads_may_share_a_backbone(scorer: Scorer, tiny_pictures: Pictures) -> None:
    before, _ = scorer.score(tiny_pictures["good"])
    torch.manual_seed(0)
    other = Head(scorer.extractor.channels, Normalisation(mode="layer", pooling=1), FlowConfig(steps=1))
    _, maps = Scorer(scorer.extractor, other, (96, 64), ScoreRule()).score(tiny_pictures["defect"])
    assert maps.shape == (8, 96, 64)
    after, _ = scorer.score(tiny_pictures["good"])
    assert after == before


def test_real_features_come_back_from_their_latents(
    tiny_bundle_store: Path, tiny_extractor: FeatureExtractor, tiny_pictures: Pictures
) -> None:
    """The trained flow backwards: latents of real pictures to the features they came from."""
    trained = head(tiny_bundle_store).eval()
    raw = tiny_extractor(torch.from_numpy(np.stack(tiny_pictures["good"] + tiny_pictures["defect"])))
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        trained = trained.to(dtype)
        with torch.no_grad():
            features = trained.normaliser([m.to(dtype) for m in raw])
            latents, there = trained.flow(features)
            back, again = trained.flow.inverse(latents)
        for x, y, z in zip(features, back, latents, strict=True):
            assert not torch.allclose(z, x, atol=0.1)  # it was trained, and is not the identity
            scale = float(x.abs().max())
            torch.testing.assert_close(y, x, rtol=0, atol=tolerance * scale)
        for one, other in zip(there, again, strict=True):
            torch.testing.assert_close(one, -other, rtol=10 * tolerance, atol=10 * tolerance)


def test_sampled_latents_become_features_like_the_real_ones(
    tiny_bundle_store: Path, tiny_extractor: FeatureExtractor, tiny_pictures: Pictures
) -> None:
    """Features made from noise lie where the training's do, within an order of magnitude."""
    trained = head(tiny_bundle_store).eval()
    raw = tiny_extractor(torch.from_numpy(np.stack(tiny_pictures["good"])))
    with torch.no_grad():
        real = trained.normaliser(raw)
        generator = torch.Generator().manual_seed(0)
        noise = [torch.randn(x.shape, generator=generator) for x in real]
        made, _ = trained.flow.inverse(noise)
    for x, y in zip(real, made, strict=True):
        assert y.isfinite().all()
        assert 0.1 < float(y.std() / x.std()) < 10
