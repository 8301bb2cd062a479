"""The camera is what its formula says, and a flow fitted to its shots follows it."""

import doctest
import math

import pytest
import torch

from training.density import noise as module
from training.density.fit import DensityFitError, FitSettings
from training.density.noise import (
    Camera,
    fit_noise,
    noise_flow,
    noise_levels,
    noise_of_repeats,
    photograph_patches,
)

CAMERA = Camera()


def normal(noise: torch.Tensor, variance: float) -> torch.Tensor:
    """Log-density of each value, of mean 0."""
    return -0.5 * (noise.square() / variance + math.log(2 * math.pi * variance))


def test_the_camera_has_its_mean_and_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    for brightness in (0.0, 0.02, 0.3, 1.0):
        clean = torch.full((200_000,), brightness)
        noise = CAMERA.shoot(clean, generator) - clean
        expected = CAMERA.variance(clean)[0].item()
        assert abs(noise.mean().item()) < 5 * (expected / len(clean)) ** 0.5
        assert noise.var().item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("brightness", [0.0, 0.004, 0.25, 1.0])
def test_its_density_integrates_to_one(brightness: float) -> None:
    noise = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[:, None]
    clean = torch.full_like(noise, brightness)
    density = CAMERA.log_prob(noise, clean).exp()
    assert (density.sum() * 1e-4).item() == pytest.approx(1, abs=1e-8)
    mean_square = (density * noise[:, 0].square()).sum().item() * 1e-4
    assert mean_square == pytest.approx(CAMERA.variance(clean)[0].item(), rel=1e-6)


def test_without_light_the_density_is_that_of_the_read_out() -> None:
    noise = torch.randn(3, 1, 2, 2, dtype=torch.float64) * 0.02
    expected = normal(noise, CAMERA.read_variance)
    found = CAMERA.log_prob(noise, torch.zeros_like(noise))
    assert torch.allclose(found, expected.flatten(1).sum(1), atol=1e-12)


@pytest.mark.parametrize(
    "values", [(0.9, 0.01), (0.9, 0.05), (0.3, 0.01), (0.5, 0.0), (-0.8, 0.9), (4.0, 1.0)]
)
def test_its_density_is_exact_far_from_what_is_expected(values: tuple[float, float]) -> None:
    """Hot and dead pixels too, alone and beside a white one."""
    value, brightness = values
    photons = torch.arange(3000, dtype=torch.float64)
    mean = torch.tensor(brightness, dtype=torch.float64) / CAMERA.gain
    count = torch.special.xlogy(photons, mean) - mean - torch.lgamma(photons + 1)
    read = normal(value + brightness - CAMERA.gain * photons, CAMERA.read_variance)
    expected = torch.logsumexp(count + read, 0).item()
    noise = torch.tensor([[value], [0.0]], dtype=torch.float64)
    clean = torch.tensor([[brightness], [1.0]], dtype=torch.float64)
    for found in (CAMERA.log_prob(noise[:1], clean[:1]), CAMERA.log_prob(noise, clean)):
        assert found[0].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("values", [(0.0, 1e-4), (-1.0, 1e-4), (0.01, 0.0), (math.nan, 1e-4)])
def test_a_camera_without_noise_is_refused(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Camera(*values)


def test_repeats_give_the_noise_its_full_variance() -> None:
    clean = torch.full((4000, 1, 2, 2), 0.5)
    generator = torch.Generator().manual_seed(1)
    shots = torch.stack([CAMERA.shoot(clean, generator) for _ in range(3)])
    estimate, noise = noise_of_repeats(shots)
    assert estimate.shape == noise.shape == (12_000, 1, 2, 2)
    assert noise.var().item() == pytest.approx(CAMERA.variance(clean)[0, 0, 0, 0].item(), rel=0.03)
    assert torch.allclose(estimate[:4000] + noise[:4000] * (2 / 3) ** 0.5, shots[0], atol=1e-6)


def test_one_shot_tells_no_noise() -> None:
    with pytest.raises(ValueError, match=r"at least 2 shots .*\(1, 5, 1, 8, 8\)"):
        noise_of_repeats(torch.zeros(1, 5, 1, 8, 8))


def test_patches_are_pieces_of_the_photograph() -> None:
    patches = photograph_patches("china.jpg", 8)
    assert patches.shape == (53 * 80, 1, 8, 8)
    assert patches.min() >= 0
    assert patches.max() <= 1


def test_levels_are_of_the_pixels_of_their_range() -> None:
    clean = torch.tensor([0.05, 0.05, 0.15, 1.0])
    noise = torch.tensor([1.0, -3.0, 2.0, 0.5])
    levels = noise_levels(noise, clean, least=1)
    assert [(level.variance, level.pixels) for level in levels] == [(5.0, 2), (4.0, 1), (0.25, 1)]
    assert noise_levels(noise, clean) == []


@pytest.mark.slow
def test_a_fitted_flow_follows_the_camera() -> None:
    """The level by brightness, the likelihood between one normal's and the exact one."""
    generator = torch.Generator().manual_seed(0)
    clean = photograph_patches("china.jpg")[::2]
    noise = CAMERA.shoot(clean, generator) - clean
    settings = FitSettings(steps=120, batch_size=64, learning_rate=1e-2, every=60)
    flow, _ = fit_noise(clean, noise, settings)
    test = photograph_patches("flower.jpg")[::8]
    truth = CAMERA.shoot(test, generator) - test
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = flow.sample(len(test), context=test)
        learned = flow.log_prob(truth, test).mean().item() / 64
    for level in noise_levels(drawn, test, bins=5, least=500):
        expected = CAMERA.variance(torch.tensor(level.brightness)).item()
        assert level.variance == pytest.approx(expected, rel=0.25)
    exact = CAMERA.log_prob(truth, test).mean().item() / 64
    assert normal(truth, noise.var().item()).mean().item() + 0.1 < learned
    assert learned == pytest.approx(exact, abs=0.1)


def test_the_seed_decides_the_fit() -> None:
    clean = photograph_patches("china.jpg")[:64]
    noise = CAMERA.shoot(clean, torch.Generator().manual_seed(0)) - clean
    torch.manual_seed(5)
    flows = [fit_noise(clean, noise, FitSettings(steps=3, batch_size=16))[0] for _ in range(2)]
    with torch.no_grad():
        first, second = (flow.log_prob(noise, clean) for flow in flows)
    assert torch.equal(first, second)
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    fit_noise(clean, noise, FitSettings(steps=1, batch_size=16))
    assert torch.equal(torch.rand(2), expected)


def test_correlated_noise_and_colours_fit_too() -> None:
    assert noise_flow(3, 6).sample(2, context=torch.rand(2, 3, 6, 6)).shape == (2, 3, 6, 6)


def test_what_does_not_fit_together_is_refused() -> None:
    settings = FitSettings(steps=1)
    with pytest.raises(ValueError, match=r"\(4, 1, 8, 8\) and \(4, 1, 4, 4\)"):
        fit_noise(torch.zeros(4, 1, 8, 8), torch.zeros(4, 1, 4, 4), settings)
    with pytest.raises(ValueError, match="S, S"):
        fit_noise(torch.zeros(4, 1, 8, 6), torch.zeros(4, 1, 8, 6), settings)
    noise = torch.zeros(4, 1, 8, 8)
    noise[2, 0, 1, 1] = math.nan
    for parts, name in (((torch.zeros(4, 1, 8, 8), noise), "noise"), ((noise, noise), "clean patches")):
        with pytest.raises(DensityFitError, match=f"row 2 of the {name} has a value that is not finite"):
            fit_noise(*parts, settings)
    with pytest.raises(DensityFitError, match="training and validation samples"):
        fit_noise(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), settings)


def test_its_examples_run() -> None:
    assert doctest.testmod(module).failed == 0
