"""Base distributions."""

import math

import pytest
import torch
from scipy import stats

from flows import DiagonalNormal, StandardLogistic, StandardNormal, standard_normal_log_prob


@pytest.mark.parametrize("event", [(1,), (4,), (3, 2, 5)])
def test_standard_normal_matches_scipy(event: tuple[int, ...]) -> None:
    z = 3 * torch.randn(6, *event, dtype=torch.float64)
    expected = stats.norm.logpdf(z.numpy()).reshape(6, -1).sum(1)
    for found in (standard_normal_log_prob(z), StandardNormal(event).log_prob(z)):
        assert found.shape == (6,)
        assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-13)


def test_samples_are_standard_normal() -> None:
    z = StandardNormal((2, 3, 4)).sample(2000, generator=torch.Generator().manual_seed(0))
    assert z.shape == (2000, 2, 3, 4)
    # Kolmogorov-Smirnov test of 48,000 values; the fixed seed makes it deterministic.
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 0.01


def test_standard_logistic_matches_scipy() -> None:
    z = 5 * torch.randn(6, 3, dtype=torch.float64)
    expected = stats.logistic.logpdf(z.numpy()).sum(1)
    assert StandardLogistic((3,)).log_prob(z).tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    samples = StandardLogistic((4,)).double().sample(4000, generator=torch.Generator().manual_seed(0))
    assert stats.kstest(samples.flatten().numpy(), "logistic").pvalue > 0.01


def learned() -> DiagonalNormal:
    base = DiagonalNormal((2,)).double()
    base.load_state_dict(
        {"mean": torch.tensor([1.0, 2.0]), "log_deviation": torch.tensor([math.log(3), math.log(0.5)])}
    )
    return base


def test_diagonal_normals_match_scipy() -> None:
    z = torch.randn(5, 2, dtype=torch.float64)
    expected = stats.norm.logpdf(z.numpy(), [1, 2], [3, 0.5]).sum(1)
    assert learned().log_prob(z).tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_temperature_scales_the_deviation(temperature: float) -> None:
    z = learned().sample(20_000, temperature=temperature, generator=torch.Generator().manual_seed(1))
    assert z.mean(0).tolist() == pytest.approx([1, 2], abs=0.05)
    assert z.std(0).tolist() == pytest.approx([3 * temperature, 0.5 * temperature], rel=0.02)
