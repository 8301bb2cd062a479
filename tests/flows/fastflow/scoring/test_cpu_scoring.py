"""Score and map on a CPU: those of the reference in torch, image by image."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.fastflow.config import ScoreRule
from flows.fastflow.scoring.cpu_scoring import combine_scales, pixel_planes, score_planes, upsample_energies
from flows.fastflow.scoring.map_and_score import anomaly_map, image_score, pixel_energies
from tests.flows.fastflow.scoring.random_energies import FACTORS, SIZE, random_energies


def both(
    rule: ScoreRule,
    scales: int = 3,
    seed: int = 0,
    factor: float = 1.0,
    region: NDArray[np.bool_] | None = None,
) -> tuple[tuple[float, NDArray[np.float32]], tuple[float, NDArray[np.float32]]]:
    energies = random_energies(scales, seed=seed, factor=factor)
    flow, gaussian, picture = energies.flow, energies.gaussian, torch.tensor([[0.4, 3.0]])
    [pixels] = pixel_planes(energies, rule, SIZE)
    reference = pixel_energies(flow, gaussian, rule, SIZE)
    planes = upsample_energies([x[0].numpy() for x in flow], [x[0].numpy() for x in gaussian], rule, SIZE)
    for plane, expected in zip(planes, reference[0].numpy(), strict=True):
        np.testing.assert_allclose(plane, expected, rtol=1e-5, atol=1e-6 * factor)
    mask = None if region is None else torch.from_numpy(region)[None]
    score = image_score(reference[:, :scales], rule, picture, mask).item()
    score_map = anomaly_map(reference[:, scales:], rule, mask)[0].numpy()
    return score_planes(pixels, picture[0].numpy(), rule, region), (score, score_map)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scales", [1, 2, 3, 4])
@pytest.mark.parametrize("gaussian", [0.0, 0.35, 1.0])
def test_as_the_reference(scales: int, gaussian: float, seed: int) -> None:
    (score, score_map), (expected, expected_map) = both(ScoreRule(gaussian=gaussian), scales, seed)
    assert score == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(score_map, expected_map, rtol=1e-5, atol=2e-6)
    assert score_map.dtype == np.float32


@pytest.mark.parametrize("factor", FACTORS)
def test_however_small_or_large(factor: float) -> None:
    (score, score_map), (expected, expected_map) = both(ScoreRule(), factor=factor)
    assert np.isfinite(score_map).all()
    assert score == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(score_map, expected_map, rtol=1e-4, atol=2e-6)


def test_region() -> None:
    region = np.zeros(SIZE, np.bool_)
    region[10:30, 5:25] = True
    (score, score_map), (expected, expected_map) = both(ScoreRule(), region=region)
    assert score == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(score_map, expected_map, rtol=1e-5, atol=2e-6)
    everything = np.ones(SIZE, np.bool_)
    (whole, _), (expected, _) = both(ScoreRule(), region=everything)
    assert whole == pytest.approx(expected, rel=1e-6) == both(ScoreRule())[0][0]


def test_region_never_raises_a_score_be_it_by_a_bit() -> None:
    rule, generator = ScoreRule(picture=0.0), np.random.default_rng(0)
    for seed in range(50):
        found = random_energies(seed=seed)
        region = generator.random(SIZE) < generator.random()
        region[0, 0] = True
        scores = [
            score_planes(next(pixel_planes(found, rule, SIZE)), np.zeros(2, np.float32), rule, mask)[0]
            for mask in (None, region)
        ]
        assert scores[1] <= scores[0]


@pytest.mark.parametrize("at", [0, 61, 100])
def test_what_is_no_number_makes_no_score(at: int) -> None:
    planes = [np.full(SIZE, 0.5, np.float32) for _ in range(6)]
    planes[0].reshape(-1)[at] = np.nan
    assert np.isnan(
        score_planes(combine_scales(planes, ScoreRule()), np.zeros(2, np.float32), ScoreRule())[0]
    )
