"""From energies to a map and a score: what each must keep in single precision."""

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flows.fastflow.config import ScoreRule
from flows.fastflow.scoring.map_and_score import anomaly_map, flow_energies, image_score, pixel_energies

RULE = ScoreRule()
LINEAR = ScoreRule(enlarging="linear")
magnitudes = st.floats(1e-6, 1e4)


def field(seed: int, scales: int, size: tuple[int, int] = (12, 9)) -> Tensor:
    """Random shares in [0.2, 1] per scale and pixel, (1, S, H, W)."""
    return torch.rand((1, scales, *size), generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.2


def score(q: Tensor, rule: ScoreRule = RULE, region: Tensor | None = None, whole: float = 0.5) -> Tensor:
    """The image score of images that as a whole are as strange as `whole`, by default as good parts are."""
    return image_score(q, rule, torch.full((len(q), 2), whole), region)


class TestFlowEnergies:
    def test_they_are_half_the_mean_square_over_channels(self) -> None:
        latents = [torch.randn(2, 7, 4, 6), torch.randn(2, 3, 2, 3)]
        for z, q in zip(latents, flow_energies(latents), strict=True):
            assert q.shape == (2, *z.shape[2:])
            np.testing.assert_allclose(q.numpy(), 0.5 * (z.numpy() ** 2).mean(1), rtol=1e-5)


class TestPixelEnergies:
    @pytest.mark.parametrize(("source", "target"), [((2, 3), (8, 12)), ((3, 5), (17, 13)), ((1, 1), (4, 4))])
    def test_upsampling_is_bilinear_between_centres(
        self, source: tuple[int, int], target: tuple[int, int]
    ) -> None:
        """Pixel centres lie at (i + 0.5) / n, the border continues flat: align_corners False."""
        drawn = field(3, 1, source)[0]
        expected = cv2.resize(drawn[0].numpy(), target[::-1], interpolation=cv2.INTER_LINEAR)
        found = pixel_energies([drawn], [drawn], LINEAR, target)
        np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[0, 1].numpy(), expected, rtol=1e-4, atol=1e-6)  # q^(1-w) q^w

    @settings(max_examples=50)
    @given(w=st.floats(0, 1), q=magnitudes, e=magnitudes, seed=st.integers(0, 100))
    def test_the_map_is_made_of_the_products_of_positions(
        self, w: float, q: float, e: float, seed: int
    ) -> None:
        """q^(1 - w) e^w, taken before the size is changed; the flow's own energies are untouched."""
        flow, gaussian = q * field(seed, 1, (3, 4))[0], e * field(seed + 1, 1, (3, 4))[0]
        rule = ScoreRule(gaussian=w, enlarging="linear")
        found = pixel_energies([flow], [gaussian], rule, (3, 4))
        assert torch.equal(found[:, 0], flow)
        expected = flow.double().numpy() ** (1 - w) * gaussian.double().numpy() ** w
        np.testing.assert_allclose(found[:, 1].numpy(), expected, rtol=1e-4)
        larger = pixel_energies([1.1 * flow], [gaussian], rule, (3, 4))
        stranger = pixel_energies([flow], [1.1 * gaussian], rule, (3, 4))
        assert (larger[:, 1] >= found[:, 1] * (1 - 1e-6)).all()
        assert (stranger[:, 1] >= found[:, 1] * (1 - 1e-6)).all()


class TestImageScore:
    @settings(max_examples=200)
    @given(
        q=magnitudes,
        shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
        fraction=st.sampled_from([0.01, 0.1, 1.0]),
        whole=st.sampled_from([0.0, 0.5, 1e6]),
        seed=st.integers(0, 100),
    )
    def test_rise_of_a_thousandth_in_the_largest_scale_raises_it(
        self, q: float, shares: list[float], fraction: float, whole: float, seed: int
    ) -> None:
        """Wherever q lies in [0, 1e4]: the score keeps ranking when colours have long saturated."""
        rule = ScoreRule(top_fraction=fraction)
        largest = q * field(seed, 1)
        others = [share * largest for share in shares[1:]]
        before = score(torch.cat([largest, *others], 1), rule, whole=whole)
        after = score(torch.cat([1.001 * largest, *others], 1), rule, whole=whole)
        assert before.isfinite().all()
        assert (after > before).all()

    def test_it_is_the_mean_of_the_top_share_of_pixels(self) -> None:
        q = 100 * field(1, 3, (40, 30))
        pixels = np.log1p(q[0].double().numpy() / 0.01).mean(0).ravel()
        expected = np.sort(pixels)[-12:].mean()  # 1 % of 1200
        assert score(q, whole=0).item() == pytest.approx(expected, rel=1e-5)
        everything = score(q, ScoreRule(top_fraction=1), whole=0)
        assert everything.item() == pytest.approx(pixels.mean(), rel=1e-5)

    def test_the_whole_image_adds_the_sum_of_its_logarithms(self) -> None:
        q = 100 * field(1, 3).repeat(3, 1, 1, 1)
        picture = torch.tensor([[0.5, 0.5], [0.0, 1e4], [3.0, 0.2]])
        for weight in (0.1, 2.5):
            rule = ScoreRule(picture=weight)
            added = image_score(q, rule, picture) - image_score(q, rule, torch.zeros(3, 2))
            expected = weight * np.log1p(picture.double().numpy() / 0.01).sum(1)
            np.testing.assert_allclose(added.numpy(), expected, rtol=1e-4)

    def test_pixels_outside_a_region_count_as_zero(self) -> None:
        """So 4 pixels out of the 12 that are averaged give a third of their mean."""
        q = 100 * field(1, 3, (40, 30))
        region = torch.zeros(1, 40, 30, dtype=torch.bool)
        region[0, 7, 3:7] = True
        pixels = (q / 0.01).log1p().mean(1)[region]
        assert score(q, region=region).item() == pytest.approx(pixels.sum().item() / 12, rel=1e-5)
        assert score(q, region=torch.zeros_like(region)).item() == 0


class TestAnomalyMap:
    @settings(max_examples=50)
    @given(
        q=st.floats(1e-3, 1e4),
        scales=st.integers(1, 4),
        sharpness=st.floats(0.5, 10),
        seed=st.integers(0, 1000),
    )
    def test_it_is_the_formula(self, q: float, scales: int, sharpness: float, seed: int) -> None:
        """-1/s log mean exp(-s q), of all scales and of all but the coarsest, in half each."""
        drawn = q * field(seed, scales)
        exact = drawn.double()

        def soft(x: Tensor) -> Tensor:
            return -(torch.logsumexp(-sharpness * x, 1) - math.log(x.shape[1])) / sharpness

        expected = soft(exact) if scales == 1 else (soft(exact) + soft(exact[:, :-1])) / 2
        found = anomaly_map(drawn, ScoreRule(sharpness=sharpness))
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)
