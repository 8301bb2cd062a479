"""The standard normal."""

import pytest
import torch
from scipy import stats

from flows import StandardNormal, standard_normal_log_prob


@pytest.mark.parametrize("event", [(1,), (4,), (3, 2, 5)])
def test_log_prob_is_scipys_summed_over_the_event(event: tuple[int, ...]) -> None:
    z = 3 * torch.randn(6, *event, dtype=torch.float64)
    expected = stats.norm.logpdf(z.numpy()).reshape(6, -1).sum(1)
    for found in (standard_normal_log_prob(z), StandardNormal(event).log_prob(z)):
        assert found.shape == (6,)
        assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-13)


def test_no_rows_have_no_densities() -> None:
    assert standard_normal_log_prob(torch.zeros(0, 3, 2, 2)).shape == (0,)


def test_samples_are_standard_normal() -> None:
    z = StandardNormal((2, 3, 4)).sample(2000, torch.Generator().manual_seed(0))
    assert z.shape == (2000, 2, 3, 4)
    # Kolmogorov-Smirnov over 48,000 values; the seed is fixed, so this passes always or never.
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 0.01


def test_samples_follow_the_module_to_another_dtype() -> None:
    assert StandardNormal((2,)).sample(1).dtype == torch.float32
    assert StandardNormal((2,)).double().sample(1).dtype == torch.float64
    assert StandardNormal((2,)).to("meta").sample(1).device.type == "meta"


def test_a_generator_fixes_the_samples() -> None:
    base = StandardNormal((5,))
    one, two = (base.sample(3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)


def test_it_adds_nothing_to_a_state_dict() -> None:
    assert dict(StandardNormal((5,)).state_dict()) == {}


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1, 1), (3,)])
def test_an_event_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected shape \(N, 3\); got"):
        StandardNormal((3,)).log_prob(torch.zeros(shape))
