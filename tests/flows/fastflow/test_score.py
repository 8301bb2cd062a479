"""From energies to a map and a score: what each must keep in single precision."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import spearmanr
from torch import Tensor

from flows.fastflow.enlarging import spline_weights
from flows.fastflow.score import (
    ScoreRule,
    anomaly_map,
    averaged,
    flow_energies,
    image_score,
    pixel_energies,
    positions_part,
)

RULE = ScoreRule()
LINEAR = ScoreRule(enlarging="linear")
magnitudes = st.floats(1e-6, 1e4)


def field(seed: int, scales: int, size: tuple[int, int] = (12, 9)) -> Tensor:
    """Random shares in [0.2, 1] per scale and pixel, (1, S, H, W)."""
    return torch.rand((1, scales, *size), generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.2


def some(
    seed: int, tiles: int = 1, sides: Sequence[tuple[int, int]] = ((12, 9), (6, 5), (3, 2))
) -> list[Tensor]:
    """Random shares in [0.2, 1] per scale, tile and position, (1, T, H_i, W_i)."""
    return [field(seed + 100 * i, tiles, side) for i, side in enumerate(sides)]


def times(factor: float, flow: Sequence[Tensor]) -> list[Tensor]:
    return [factor * q for q in flow]


def whole(value: float, n: int = 1) -> Tensor:
    """Energies of pictures that as a whole are so strange; good parts are near 0.5."""
    return torch.full((n, 2), value)


def mapped(q: Tensor) -> Tensor:
    return anomaly_map(q, RULE)


class TestFlowEnergies:
    def test_they_are_half_the_mean_square_over_channels(self) -> None:
        latents = [torch.randn(2, 7, 4, 6), torch.randn(2, 3, 2, 3)]
        for z, q in zip(latents, flow_energies(latents), strict=True):
            assert q.shape == (2, *z.shape[2:])
            np.testing.assert_allclose(q.numpy(), 0.5 * (z.numpy() ** 2).mean(1), rtol=1e-5)

    def test_they_are_near_a_half_for_standard_normal_latents(self) -> None:
        z = torch.randn((4, 64, 16, 16), generator=torch.Generator().manual_seed(0))
        assert flow_energies([z])[0].mean().item() == pytest.approx(0.5, abs=0.01)


class TestPixelEnergies:
    @pytest.mark.parametrize(("source", "target"), [((2, 3), (8, 12)), ((3, 5), (17, 13)), ((1, 1), (4, 4))])
    def test_upsampling_is_bilinear_between_centres(
        self, source: tuple[int, int], target: tuple[int, int]
    ) -> None:
        """Pixel centres lie at (i + 0.5) / n, the border continues flat: align_corners False."""
        drawn = field(3, 1, source)[0]
        q = drawn[0].double().numpy()
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
        [[found]] = pixel_energies([drawn], [drawn], LINEAR, target)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)  # q^(1-w) q^w

    @pytest.mark.parametrize(("source", "target"), [((2, 3), (8, 12)), ((3, 5), (17, 13)), ((1, 1), (4, 4))])
    def test_by_default_products_are_smoothed(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        flow, gaussian = field(3, 1, source)[0], field(4, 1, source)[0]
        [[found]] = pixel_energies([flow], [gaussian], RULE, target)
        both = flow.double() ** 0.75 * gaussian.double() ** 0.25
        rows, columns = (spline_weights(n, m) for n, m in zip(source, target, strict=True))
        np.testing.assert_allclose(found.numpy(), rows @ both[0].numpy() @ columns.T, rtol=1e-5)

    def test_there_is_one_of_each_scale(self) -> None:
        flow = [torch.full((2, 8, 8), 0.5), torch.full((2, 3, 4), 2.0), torch.full((2, 1, 1), 4.5)]
        gaussian = [torch.full((2, 8, 8), 0.25), torch.full((2, 3, 4), 8.0), torch.full((2, 1, 1), 4.5)]
        q = pixel_energies(flow, gaussian, ScoreRule(gaussian=0.5), (16, 20))
        assert q.shape == (2, 3, 16, 20)
        assert q[0, :, 5, 7].tolist() == pytest.approx([0.125**0.5, 4.0, 4.5])

    @settings(max_examples=50, deadline=None)
    @given(w=st.floats(0, 1), q=magnitudes, e=magnitudes, seed=st.integers(0, 100))
    def test_the_map_is_made_of_the_products_of_positions(
        self, w: float, q: float, e: float, seed: int
    ) -> None:
        """q^(1 - w) e^w, taken before the size is changed."""
        flow, gaussian = q * field(seed, 1, (3, 4))[0], e * field(seed + 1, 1, (3, 4))[0]
        rule = ScoreRule(gaussian=w, enlarging="linear")
        found = pixel_energies([flow], [gaussian], rule, (3, 4))
        expected = flow.double().numpy() ** (1 - w) * gaussian.double().numpy() ** w
        np.testing.assert_allclose(found[:, 0].numpy(), expected, rtol=1e-4)
        larger = pixel_energies([1.1 * flow], [gaussian], rule, (3, 4))
        stranger = pixel_energies([flow], [1.1 * gaussian], rule, (3, 4))
        assert (larger >= found * (1 - 1e-6)).all()
        assert (stranger >= found * (1 - 1e-6)).all()

    def test_without_a_share_the_gaussian_is_not_looked_at(self) -> None:
        flow = [field(0, 1, (4, 4))[0], torch.zeros(1, 2, 2)]
        nonsense = [torch.full((1, 4, 4), math.nan), torch.full((1, 2, 2), math.inf)]
        found = pixel_energies(flow, nonsense, ScoreRule(gaussian=0, enlarging="linear"), (4, 4))
        assert torch.equal(found[:, 0], flow[0])
        assert found.isfinite().all()

    def test_with_the_whole_share_the_map_is_the_gaussians(self) -> None:
        flow, gaussian = 100 * field(0, 1, (8, 8))[0], field(1, 1, (8, 8))[0]
        found = pixel_energies([flow], [gaussian], ScoreRule(gaussian=1, enlarging="linear"), (8, 8))
        torch.testing.assert_close(found[:, 0], gaussian)

    def test_what_the_flow_shrinks_the_gaussian_remembers(self) -> None:
        """And the other way round: neither of them hides a defect that the other sees."""
        good, seen, shrunk = (
            torch.full((1, 1, 1), 0.5),
            torch.full((1, 1, 1), 500.0),
            torch.full((1, 1, 1), 0.1),
        )
        for flow, gaussian in ((shrunk, seen), (seen, shrunk)):
            both = pixel_energies([flow], [gaussian], RULE, (1, 1)).item()
            assert both > pixel_energies([good], [good], RULE, (1, 1)).item()

    def test_a_scale_without_its_gaussian_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            pixel_energies([field(0, 1)[0], field(1, 1)[0]], [field(0, 1)[0]], RULE, (8, 8))


class TestPositionsPart:
    @settings(max_examples=200, deadline=None)
    @given(
        q=magnitudes,
        scale=st.integers(0, 2),
        tiles=st.integers(1, 3),
        top=st.sampled_from([0.01, 0.125, 1.0, 1000.0]),
        seed=st.integers(0, 100),
    )
    def test_a_rise_of_a_thousandth_in_any_scale_raises_it(
        self, q: float, scale: int, tiles: int, top: float, seed: int
    ) -> None:
        """Wherever q lies in [0, 1e4]: the score keeps ranking when colours have long saturated."""
        flow, rule = times(q, some(seed, tiles)), ScoreRule(top=top)
        raised = [1.001 * x if i == scale else x for i, x in enumerate(flow)]
        before, after = positions_part(flow, rule), positions_part(raised, rule)
        assert before.isfinite().all()
        assert (after > before).all()

    @pytest.mark.parametrize("exponent", range(-6, 5))
    def test_it_does_so_at_the_size_of_real_maps(self, exponent: int) -> None:
        flow = times(10.0**exponent, some(0, 1, [(32, 32), (16, 16), (8, 8)]))
        for scale in range(3):
            raised = [1.001 * x if i == scale else x for i, x in enumerate(flow)]
            assert positions_part(raised, RULE).item() > positions_part(flow, RULE).item()

    def test_it_is_the_mean_over_scales_of_each_ones_most_anomalous_positions(self) -> None:
        flow = times(100, some(1, 1, [(40, 30), (16, 16), (4, 2)]))
        expected = []
        for q, k in zip(flow, (4, 2, 1), strict=True):  # an eighth of the side: 34.6, 16, 2.8
            logarithms = np.log1p(q.double().numpy().ravel() / 0.01)
            expected.append(np.sort(logarithms)[-k:].mean())
        assert positions_part(flow, RULE).item() == pytest.approx(np.mean(expected), rel=1e-5)
        every = positions_part(flow, ScoreRule(top=1000)).item()
        means = [np.log1p(q.double().numpy() / 0.01).mean() for q in flow]
        assert every == pytest.approx(np.mean(means), rel=1e-5)

    def test_each_scale_may_have_them_elsewhere(self) -> None:
        at_one_place, elsewhere = ([torch.zeros(1, 1, 8, 8) for _ in range(2)] for _ in range(2))
        at_one_place[0][0, 0, 1, 1] = at_one_place[1][0, 0, 1, 1] = 5.0
        elsewhere[0][0, 0, 1, 1] = elsewhere[1][0, 0, 6, 2] = 5.0
        assert positions_part(elsewhere, RULE).item() == pytest.approx(math.log(1 + 500))
        assert torch.equal(positions_part(elsewhere, RULE), positions_part(at_one_place, RULE))

    def test_of_many_tiles_as_many_positions_count_as_of_one(self) -> None:
        """Or a large picture would dilute a small defect."""
        one = some(0, 1)
        many = [torch.cat([torch.zeros(1, 5, *q.shape[2:]), q], 1) for q in one]
        assert torch.equal(positions_part(many, RULE), positions_part(one, RULE))

    @pytest.mark.parametrize(
        ("side", "top", "expected"),
        [((32, 32), 0.125, 4), ((16, 16), 0.125, 2), ((8, 8), 0.125, 1), ((3, 3), 0.125, 1), ((1, 1), 9, 1),
         ((64, 16), 0.125, 4), ((12, 12), 0.125, 2), ((20, 20), 0.125, 3), ((28, 28), 0.125, 4),
         ((4, 4), 1000, 16), ((4, 5), 1e-9, 1)],
    )  # fmt: skip
    def test_how_many_positions(self, side: tuple[int, int], top: float, expected: int) -> None:
        assert averaged(ScoreRule(top=top), side) == expected

    def test_it_is_zero_only_where_everything_is(self) -> None:
        assert positions_part([torch.zeros(2, 1, 4, 4)] * 3, RULE).tolist() == [0, 0]
        assert positions_part([torch.full((1, 1, 4, 4), 1e-38)] * 3, RULE).item() > 0

    @pytest.mark.parametrize("q", [0.0, 1e-38, 1.0, 104.0, 1e4, 1e12, 1e36])
    def test_it_is_finite(self, q: float) -> None:
        assert positions_part([torch.full((1, 1, 3, 3), q)] * 2, RULE).isfinite().all()

    def test_pictures_of_a_batch_are_scored_apart(self) -> None:
        of_each = [times(10.0**i, some(i)) for i in range(4)]
        together = [torch.cat(scale) for scale in zip(*of_each, strict=True)]
        apart = [positions_part(flow, RULE).item() for flow in of_each]
        assert positions_part(together, RULE).tolist() == pytest.approx(apart)
        assert sorted(apart) == apart

    @settings(max_examples=100, deadline=None)
    @given(
        share=st.floats(0, 1),
        top=st.sampled_from([0.01, 0.125, 1.0, 1000.0]),
        tiles=st.integers(1, 3),
        seed=st.integers(0, 1000),
    )
    def test_what_does_not_count_never_raises_it_by_even_a_last_bit(
        self, share: float, top: float, tiles: int, seed: int
    ) -> None:
        flow, rule = some(seed, tiles), ScoreRule(top=top)
        generator = torch.Generator().manual_seed(seed)
        counted = [torch.rand(q.shape, generator=generator) < share for q in flow]
        inside = positions_part(flow, rule, counted)
        assert (inside <= positions_part(flow, rule)).all()
        # Nor does less.
        assert (positions_part(flow, rule, [x.triu() for x in counted]) <= inside).all()

    def test_positions_that_do_not_count_are_as_good_as_zero(self) -> None:
        """So one of the four that are averaged gives a quarter of its logarithm."""
        q = 100 * field(1, 1, (32, 32))
        counted = torch.zeros_like(q, dtype=torch.bool)
        counted[0, 0, 7, 3] = True
        expected = math.log1p(q[0, 0, 7, 3].item() / 0.01) / 4
        assert positions_part([q], RULE, [counted]).item() == pytest.approx(expected, rel=1e-5)
        assert positions_part([q], RULE, [torch.zeros_like(counted)]).item() == 0
        assert torch.equal(positions_part([q], RULE, [~torch.zeros_like(counted)]), positions_part([q], RULE))

    def test_what_does_not_count_may_be_anything(self) -> None:
        q = field(1, 1)
        counted = torch.ones_like(q, dtype=torch.bool)
        counted[0, 0, 3, 3] = False
        expected = positions_part([q], RULE, [counted])
        q[0, 0, 3, 3] = math.inf
        assert torch.equal(positions_part([q], RULE, [counted]), expected)

    def test_what_is_no_number_makes_no_score(self) -> None:
        q = field(1, 1)
        q[0, 0, 3, 3] = math.nan
        assert positions_part([q], RULE).isnan().all()


class TestImageScore:
    def test_the_whole_picture_adds_the_sum_of_its_logarithms(self) -> None:
        flow = [q.repeat(3, 1, 1, 1) for q in times(100, some(1))]
        picture = torch.tensor([[0.5, 0.5], [0.0, 1e4], [3.0, 0.2]])
        for weight in (0.1, 2.5):
            rule = ScoreRule(picture=weight)
            added = image_score(flow, rule, picture) - positions_part(flow, rule)
            expected = weight * np.log1p(picture.double().numpy() / 0.01).sum(1)
            np.testing.assert_allclose(added.numpy(), expected, rtol=1e-4)

    def test_a_stranger_whole_picture_scores_higher_at_any_scale(self) -> None:
        flow = [q.repeat(3, 1, 1, 1) for q in some(1)]
        usual, one, other = image_score(
            flow, RULE, torch.tensor([[0.5, 0.5], [0.6, 0.5], [0.5, 0.6]])
        ).tolist()
        assert usual < one == other

    def test_without_a_weight_the_whole_picture_is_not_counted(self) -> None:
        flow = some(1)
        assert torch.equal(image_score(flow, ScoreRule(picture=0), whole(1e6)), positions_part(flow, RULE))

    def test_a_single_scale_of_the_whole_picture_will_do(self) -> None:
        flow = some(1)
        added = image_score(flow, RULE, torch.full((1, 1), 0.5)) - positions_part(flow, RULE)
        assert added.item() == pytest.approx(0.1 * math.log(51), rel=1e-5)

    def test_a_small_rise_shows_beside_a_very_strange_whole(self) -> None:
        flow = some(1)
        raised = [flow[0] * 1.001, *flow[1:]]
        before, after = (image_score(q, RULE, whole(1e36)) for q in (flow, raised))
        assert before.isfinite().all()
        assert after.item() > before.item()


class TestAnomalyMap:
    @settings(max_examples=50, deadline=None)
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

    @settings(max_examples=50, deadline=None)
    @given(q=st.floats(1e-3, 1e4), scales=st.integers(1, 4), seed=st.integers(0, 1000))
    def test_it_lies_between_the_least_and_the_mean(self, q: float, scales: int, seed: int) -> None:
        """At most log S / s above the least of the scales that are looked at."""
        drawn = q * field(seed, scales)
        found = mapped(drawn)
        finer = drawn[:, : max(1, scales - 1)]
        room = 1 + 1e-5
        assert (found * room + 1e-6 >= (drawn.amin(1) + finer.amin(1)) / 2).all()
        assert (found <= (drawn.mean(1) + finer.mean(1)) / 2 * room + 1e-6).all()
        assert (
            found <= ((drawn.amin(1) + finer.amin(1)) / 2 + math.log(scales) / RULE.sharpness) * room + 1e-6
        ).all()

    @settings(max_examples=50, deadline=None)
    @given(
        q=st.floats(1e-3, 1e4),
        scales=st.integers(1, 4),
        rise=st.floats(1.0, 10),
        which=st.integers(0, 3),
        seed=st.integers(0, 1000),
    )
    def test_more_energy_in_any_scale_never_lowers_it(
        self, q: float, scales: int, rise: float, which: int, seed: int
    ) -> None:
        drawn = q * field(seed, scales)
        raised = drawn.clone()
        raised[:, which % scales] *= rise
        assert (mapped(raised) >= mapped(drawn) * (1 - 1e-5) - 1e-6).all()

    @pytest.mark.parametrize("exponent", range(-3, 5))
    def test_more_energy_in_all_scales_raises_it(self, exponent: int) -> None:
        drawn = 10.0**exponent * field(0, 3, (64, 64))
        assert (mapped(1.001 * drawn) > mapped(drawn)).all()

    def test_it_ranks_much_as_the_published_map_where_that_does_not_saturate(self) -> None:
        """mean -exp(-q), as the paper's implementations combine scales."""
        drawn = 3 * torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
        published = (-np.exp(-drawn.double().numpy())).mean(1).ravel()
        assert spearmanr(published, mapped(drawn).numpy().ravel()).statistic > 0.85

    def test_it_does_not_saturate_where_that_one_does(self) -> None:
        """The published map is exactly 0 from q = 104 on in single precision."""
        q = torch.tensor([104.0, 200.0, 200.1, 1e3, 1e4]).view(1, 1, 1, -1).expand(1, 3, 1, -1)
        assert (-q).exp().count_nonzero() == 0
        found = mapped(q)[0, 0]
        assert (found.diff() > 0).all()
        torch.testing.assert_close(found, q[0, 0, 0], rtol=1e-6, atol=0)

    def test_a_pixel_counts_as_far_as_its_most_ordinary_scale_allows(self) -> None:
        """So a coarse scale's wide halo, with nothing behind it in the finest, stays out of the map."""
        q = torch.tensor([0.5, 1e4, 1e4]).view(1, 3, 1, 1)
        assert mapped(q).item() == pytest.approx(
            0.5 + (math.log(3) + math.log(2)) / (2 * RULE.sharpness), rel=1e-5
        )

    def test_finer_scales_need_not_wait_for_a_coarsest_one_that_is_blind(self) -> None:
        blind = torch.tensor([100.0, 80.0, 0.5]).view(1, 3, 1, 1)
        assert mapped(blind).item() == pytest.approx((80.5 + math.log(6) / RULE.sharpness) / 2)
        seen = torch.tensor([100.0, 80.0, 90.0]).view(1, 3, 1, 1)
        assert mapped(seen).item() > 1.9 * mapped(blind).item()

    def test_a_single_scale_is_its_own_map(self) -> None:
        q = 10 * field(0, 1)
        torch.testing.assert_close(mapped(q), q[:, 0])

    @pytest.mark.parametrize("scales", range(1, 9))
    @pytest.mark.parametrize("q", [0.0, 1e-12, 1e-7, 1e-3])
    def test_it_is_never_negative(self, scales: int, q: float) -> None:
        assert mapped(torch.full((1, scales, 2, 2), q)).min().item() >= 0

    @pytest.mark.parametrize("q", [0.0, 1e-38, 1.0, 1e4, 1e36])
    def test_it_is_finite(self, q: float) -> None:
        mixed = torch.tensor([q, 0.5, q]).view(1, 3, 1, 1)
        assert mapped(mixed).isfinite().all()
        assert mapped(mixed.expand(1, 3, 2, 2).clone().fill_(q)).isfinite().all()

    def test_its_shape_is_one_map_per_picture(self) -> None:
        assert mapped(torch.zeros(2, 3, 5, 7)).shape == (2, 5, 7)


@pytest.mark.parametrize(
    "values",
    [
        {"top": 0},
        {"top": 1001},
        {"top_fraction": 0.01},
        {"energy_floor": 0},
        {"energy_floor": -1},
        {"energy_floor": float("inf")},
        {"energy_floor": 1e-45},
        {"gaussian": -0.1},
        {"gaussian": 1.1},
        {"picture": -0.1},
        {"picture": 11},
        {"enlarging": "nearest"},
        {"sharpness": 0},
        {"sharpness": 1000},
        {"floor": 1},
    ],
)
def test_a_rule_out_of_range_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ScoreRule.model_validate(values)
