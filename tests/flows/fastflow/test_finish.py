"""Score and map on a CPU: those of the reference in torch, picture by picture."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.fastflow import score
from flows.fastflow.enlarging import Enlarging
from flows.fastflow.finish import enlarge, map_of, maps_of, picture_part, positions_part
from flows.fastflow.fused import Energies
from flows.fastflow.score import ScoreRule, anomaly_map, pixel_energies

SIZE = (64, 48)


def energies(scales: int, seed: int = 0, factor: float = 1.0, pictures: int = 2) -> Energies:
    """Of the flow and of the Gaussian, per scale (N, H_i, W_i), a few of them far out."""
    generator = torch.Generator().manual_seed(seed)

    def some() -> list[torch.Tensor]:
        sides = [max(2, 16 >> i) for i in range(scales)]
        return [factor * torch.randn((pictures, s, s - 1), generator=generator).exp() for s in sides]

    nothing = torch.zeros(pictures, scales)
    return Energies(some(), some(), torch.rand(pictures, 2, generator=generator), nothing, nothing)


def expect_as_the_reference(found: Energies, rule: ScoreRule, rtol: float = 1e-5) -> None:
    reference = pixel_energies(found.flow, found.gaussian, rule, SIZE)
    expected = anomaly_map(reference, rule).numpy()
    maps = list(maps_of(found, rule, SIZE))
    assert all(score_map.dtype == np.float32 for score_map in maps)
    np.testing.assert_allclose(maps, expected, rtol=rtol, atol=2e-6)
    blended = [map_of(list(planes), rule) for planes in reference.numpy()]
    np.testing.assert_allclose(blended, expected, rtol=rtol, atol=2e-6)
    # As two pictures of a tile each, and as one of two tiles.
    for flow in ([q[:, None] for q in found.flow], [q[None] for q in found.flow]):
        parts = [positions_part([q[i].numpy() for q in flow], rule) for i in range(len(flow[0]))]
        assert parts == pytest.approx(score.positions_part(flow, rule).tolist(), rel=1e-6)
    wholes = [picture_part(picture, rule) for picture in found.picture.numpy()]
    assert wholes == pytest.approx(score.picture_part(found.picture, rule).tolist(), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scales", [1, 2, 3, 4])
@pytest.mark.parametrize("gaussian", [0.0, 0.35, 1.0])
def test_as_the_reference(scales: int, gaussian: float, seed: int) -> None:
    expect_as_the_reference(energies(scales, seed), ScoreRule(gaussian=gaussian))


@pytest.mark.parametrize("enlarging", get_args(Enlarging))
@pytest.mark.parametrize("sharpness", [0.5, 2.0, 8.0])
def test_any_way_to_enlarge_and_any_sharpness(enlarging: Enlarging, sharpness: float) -> None:
    found, rule = energies(3), ScoreRule(enlarging=enlarging, sharpness=sharpness)
    expect_as_the_reference(found, rule)
    flow, gaussian = ([x[0].numpy() for x in scales] for scales in (found.flow, found.gaussian))
    reference = pixel_energies(found.flow, found.gaussian, rule, SIZE)[0].numpy()
    np.testing.assert_allclose(enlarge(flow, gaussian, rule, SIZE), reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("top", [1e-9, 0.125, 0.4, 3.0, 1000.0])
def test_any_number_of_positions(top: float) -> None:
    expect_as_the_reference(energies(3), ScoreRule(top=top))


@pytest.mark.parametrize("factor", [0.0, 1e-12, 1e12, 1e30, 1e34])
def test_however_small_or_large(factor: float) -> None:
    found = energies(3, factor=factor)
    assert all(np.isfinite(score_map).all() for score_map in maps_of(found, ScoreRule(), SIZE))
    expect_as_the_reference(found, ScoreRule(), rtol=1e-4)


def planes(flow: Sequence[torch.Tensor]) -> list[NDArray[np.float32]]:
    """Of two pictures those of one of two tiles."""
    return [q.numpy() for q in flow]


def test_positions_that_do_not_count_as_in_the_reference() -> None:
    generator = np.random.default_rng(0)
    for seed in range(50):
        flow, rule = energies(3, seed).flow, ScoreRule(top=float(generator.uniform(0.01, 3)))
        share = generator.random()
        counted = [generator.random(q.shape) < share for q in flow]
        found = positions_part(planes(flow), rule, counted)
        inside = [torch.from_numpy(which)[None] for which in counted]
        expected = score.positions_part([q[None] for q in flow], rule, inside).item()
        assert found == pytest.approx(expected, rel=1e-6)
        assert found <= positions_part(planes(flow), rule)


def test_positions_that_are_all_equal() -> None:
    flow = [np.full((1, side, side), 0.5, np.float32) for side in (32, 16, 8)]
    assert positions_part(flow, ScoreRule()) == pytest.approx(np.log1p(50.0), rel=1e-6)


@pytest.mark.parametrize("scale", range(3))
def test_what_is_no_number_makes_no_score(scale: int) -> None:
    flow = [np.full((1, side, side), 0.5, np.float32) for side in (32, 16, 8)]
    flow[scale][0, 3, 3] = np.nan
    assert np.isnan(positions_part(flow, ScoreRule()))
