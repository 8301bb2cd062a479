"""From latents to a map and a score: what each must keep in single precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from flows.fastflow.score import ScoreRule, anomaly_map, energies, image_score

RULE = ScoreRule()
magnitudes = st.floats(1e-6, 1e4)


def field(seed: int, scales: int, size: tuple[int, int] = (12, 9)) -> Tensor:
    """Random shares in [0.2, 1] per scale and pixel, (1, S, H, W)."""
    return torch.rand((1, scales, *size), generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.2


class TestEnergies:
    def test_it_is_half_the_mean_square_over_channels(self) -> None:
        z = torch.randn(2, 7, 4, 6)
        q = energies([z], (4, 6))
        assert q.shape == (2, 1, 4, 6)
        np.testing.assert_allclose(q[:, 0].numpy(), 0.5 * (z.numpy() ** 2).mean(1), rtol=1e-5)

    def test_it_is_near_a_half_for_standard_normal_latents(self) -> None:
        z = torch.randn((4, 64, 16, 16), generator=torch.Generator().manual_seed(0))
        assert energies([z], (32, 32)).mean().item() == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize(("source", "target"), [((2, 3), (8, 12)), ((3, 5), (17, 13)), ((1, 1), (4, 4))])
    def test_upsampling_is_bilinear_between_centres(
        self, source: tuple[int, int], target: tuple[int, int]
    ) -> None:
        """Pixel centres lie at (i + 0.5) / n, the border continues flat: align_corners False."""
        z = torch.randn(1, 3, *source)
        q = 0.5 * (z[0].numpy().astype(np.float64) ** 2).mean(0)
        expected = np.empty(target)
        for row in range(target[0]):
            for column in range(target[1]):
                at = [
                    min(max((i + 0.5) * n / m - 0.5, 0), n - 1)
                    for i, n, m in zip((row, column), source, target, strict=True)
                ]
                low = [int(a) for a in at]
                high = [min(i + 1, n - 1) for i, n in zip(low, source, strict=True)]
                u, v = at[0] - low[0], at[1] - low[1]
                expected[row, column] = (
                    (1 - u) * (1 - v) * q[low[0], low[1]]
                    + (1 - u) * v * q[low[0], high[1]]
                    + u * (1 - v) * q[high[0], low[1]]
                    + u * v * q[high[0], high[1]]
                )
        np.testing.assert_allclose(energies([z], target)[0, 0].numpy(), expected, rtol=1e-4, atol=1e-6)

    def test_scales_of_any_sizes_and_channels_stand_side_by_side(self) -> None:
        latents = [torch.ones(2, 3, 8, 8), 2 * torch.ones(2, 5, 3, 4), 3 * torch.ones(2, 2, 1, 1)]
        q = energies(latents, (16, 20))
        assert q.shape == (2, 3, 16, 20)
        assert q[0, :, 5, 7].tolist() == pytest.approx([0.5, 2.0, 4.5])


class TestImageScore:
    @settings(max_examples=200, deadline=None)
    @given(
        q=magnitudes,
        shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
        fraction=st.sampled_from([0.01, 0.1, 1.0]),
        seed=st.integers(0, 100),
    )
    def test_a_rise_of_a_thousandth_in_the_largest_scale_raises_it(
        self, q: float, shares: list[float], fraction: float, seed: int
    ) -> None:
        """Wherever q lies in [0, 1e4]: the score keeps ranking when colours have long saturated."""
        rule = ScoreRule(top_fraction=fraction)
        largest = q * field(seed, 1)
        others = [share * largest for share in shares[1:]]
        before = image_score(torch.cat([largest, *others], 1), rule)
        after = image_score(torch.cat([1.001 * largest, *others], 1), rule)
        assert before.dtype == torch.float32
        assert before.isfinite().all()
        assert (after > before).all()

    @pytest.mark.parametrize("exponent", range(-6, 5))
    def test_it_does_so_at_the_size_of_real_maps(self, exponent: int) -> None:
        q = 10.0**exponent * field(0, 3, (256, 256))
        raised = q * torch.tensor([1.001, 1, 1]).view(1, 3, 1, 1)
        assert image_score(raised, RULE).item() > image_score(q, RULE).item()

    def test_it_is_the_mean_of_the_top_share_of_pixels(self) -> None:
        q = 100 * field(1, 3, (40, 30))
        pixels = np.log1p(q[0].double().numpy() / 0.01).mean(0).ravel()
        expected = np.sort(pixels)[-12:].mean()  # 1 % of 1200
        assert image_score(q, RULE).item() == pytest.approx(expected, rel=1e-5)
        assert image_score(q, ScoreRule(top_fraction=1)).item() == pytest.approx(pixels.mean(), rel=1e-5)

    def test_at_least_one_pixel_counts(self) -> None:
        q = torch.zeros(1, 1, 2, 2)
        q[0, 0, 1, 1] = 5.0
        assert image_score(q, ScoreRule(top_fraction=1e-6)).item() == pytest.approx(math.log(1 + 500))

    def test_it_is_zero_only_where_everything_is(self) -> None:
        assert image_score(torch.zeros(2, 3, 4, 4), RULE).tolist() == [0, 0]
        assert image_score(torch.full((1, 3, 4, 4), 1e-38), RULE).item() > 0

    @pytest.mark.parametrize("q", [0.0, 1e-38, 1.0, 104.0, 1e4, 1e12, 1e36])
    def test_it_is_finite(self, q: float) -> None:
        assert image_score(torch.full((1, 2, 3, 3), q), RULE).isfinite().all()

    def test_pictures_of_a_batch_are_scored_apart(self) -> None:
        q = torch.cat([field(i, 2) * 10**i for i in range(4)])
        apart = [image_score(q[i : i + 1], RULE).item() for i in range(4)]
        assert image_score(q, RULE).tolist() == pytest.approx(apart)
        assert sorted(apart) == apart

    @settings(max_examples=100, deadline=None)
    @given(share=st.floats(0, 1), fraction=st.sampled_from([0.01, 0.1, 1.0]), seed=st.integers(0, 1000))
    def test_a_region_never_raises_it_by_even_a_last_bit(
        self, share: float, fraction: float, seed: int
    ) -> None:
        q = field(seed, 3, (30, 40)) * torch.tensor([1.0, 10.0]).repeat(20)
        region = torch.rand((1, 30, 40), generator=torch.Generator().manual_seed(seed)) < share
        rule = ScoreRule(top_fraction=fraction)
        inside = image_score(q, rule, region)
        assert (inside <= image_score(q, rule)).all()
        # Nor does a smaller one.
        assert (image_score(q, rule, region.triu()) <= inside).all()

    @pytest.mark.parametrize("seed", range(20))
    def test_a_region_that_holds_every_averaged_pixel_changes_no_bit(self, seed: int) -> None:
        q = 100 * field(seed, 3, (30, 40))
        rule = ScoreRule(top_fraction=0.1)
        pixels = (q / rule.energy_floor).log1p().mean(1)
        averaged = pixels >= pixels.flatten().topk(120).values[-1]
        others = torch.rand((1, 30, 40), generator=torch.Generator().manual_seed(seed)) < 0.5
        assert torch.equal(image_score(q, rule, averaged | others), image_score(q, rule))

    def test_pixels_outside_a_region_count_as_zero(self) -> None:
        """So 4 pixels out of the 12 that are averaged give a third of their mean."""
        q = 100 * field(1, 3, (40, 30))
        region = torch.zeros(1, 40, 30, dtype=torch.bool)
        region[0, 7, 3:7] = True
        pixels = (q / 0.01).log1p().mean(1)[region]
        assert image_score(q, RULE, region).item() == pytest.approx(pixels.sum().item() / 12, rel=1e-5)
        assert image_score(q, RULE, torch.zeros_like(region)).item() == 0

    def test_a_region_of_everything_changes_no_bit(self) -> None:
        q = 100 * field(1, 3, (40, 30))
        assert torch.equal(
            image_score(q, RULE, torch.ones(1, 40, 30, dtype=torch.bool)), image_score(q, RULE)
        )

    def test_a_pixel_outside_a_region_may_be_anything(self) -> None:
        q = field(1, 2)
        region = torch.ones(1, 12, 9, dtype=torch.bool)
        region[0, 3, 3] = False
        expected = image_score(q, RULE, region)
        q[0, :, 3, 3] = math.inf
        assert torch.equal(image_score(q, RULE, region), expected)

    def test_every_picture_of_a_batch_has_its_own_region(self) -> None:
        q = field(1, 2).repeat(2, 1, 1, 1)
        region = torch.zeros(2, 12, 9, dtype=torch.bool)
        region[0, :6] = True
        region[1, 6:] = True
        apart = [image_score(q[:1], RULE, region[i : i + 1]).item() for i in range(2)]
        assert image_score(q, RULE, region).tolist() == apart
        assert apart[0] != apart[1]


class TestAnomalyMap:
    @settings(max_examples=50, deadline=None)
    @given(q=st.floats(1e-3, 12), scales=st.integers(1, 4), seed=st.integers(0, 1000))
    def test_it_ranks_as_the_published_map_where_that_does_not_saturate(
        self, q: float, scales: int, seed: int
    ) -> None:
        """mean -exp(-q), as the paper's implementations combine scales."""
        drawn = q * field(seed, scales)
        published = (-np.exp(-drawn.double().numpy())).mean(1).ravel()
        ours = anomaly_map(drawn).numpy().ravel()
        order = np.argsort(published, kind="stable")
        assert (np.diff(ours[order]) >= -1e-6 * max(q, 1)).all()
        np.testing.assert_allclose(ours, -np.log(-published), rtol=1e-4, atol=1e-6)

    def test_it_does_not_saturate_where_that_one_does(self) -> None:
        """The published map is exactly 0 from q = 104 on in single precision."""
        q = torch.tensor([104.0, 200.0, 200.1, 1e3, 1e4]).view(1, 1, 1, -1).expand(1, 3, 1, -1)
        assert (-q).exp().count_nonzero() == 0
        found = anomaly_map(q)[0, 0]
        assert (found.diff() > 0).all()
        torch.testing.assert_close(found, q[0, 0, 0], rtol=1e-6, atol=0)

    def test_a_pixel_counts_as_far_as_its_most_ordinary_scale_allows(self) -> None:
        q = torch.tensor([0.5, 1e4, 1e4]).view(1, 3, 1, 1)
        assert anomaly_map(q).item() == pytest.approx(0.5 + math.log(3), rel=1e-5)

    @pytest.mark.parametrize("scales", range(1, 9))
    @pytest.mark.parametrize("q", [0.0, 1e-12, 1e-7, 1e-3])
    def test_it_is_never_negative(self, scales: int, q: float) -> None:
        assert anomaly_map(torch.full((1, scales, 2, 2), q)).min().item() >= 0

    def test_its_shape_is_one_map_per_picture(self) -> None:
        assert anomaly_map(torch.zeros(2, 3, 5, 7)).shape == (2, 5, 7)

    def test_it_is_zero_outside_a_region_and_unchanged_inside(self) -> None:
        q = field(2, 3)
        region = torch.zeros(1, 12, 9, dtype=torch.bool)
        region[0, 2:5, 3:8] = True
        found = anomaly_map(q, region)
        assert torch.equal(found[region], anomaly_map(q)[region])
        assert (found[~region] == 0).all()
        assert found[region].min() > 0


@pytest.mark.parametrize(
    "values",
    [{"top_fraction": 0}, {"top_fraction": 1.1}, {"energy_floor": 0}, {"energy_floor": -1}, {"floor": 1}],
)
def test_a_rule_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ScoreRule.model_validate(values)
