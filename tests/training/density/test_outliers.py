"""Outlier scores against their definitions."""

import math

import pytest
import torch
from torch import Tensor

from flows import Compose, Flow, Scaling, StandardNormal, UniformDequantization
from training.density.image_data import digits
from training.density.named_recipes import arguments, build
from training.density.outliers import negative_log_likelihood, typicality


def small_flow(log_scale: float = 0.0) -> Flow:
    scaling = Scaling(1)
    torch.nn.init.constant_(scaling.log_scale, log_scale)
    return Flow(Compose([UniformDequantization(4), scaling]), StandardNormal((1, 2, 2))).eval()


def images(count: int = 6) -> Tensor:
    return torch.randint(4, (count, 1, 2, 2), generator=torch.Generator().manual_seed(0)).float()


def test_the_likelihood_is_a_mean_over_draws() -> None:
    flow, x = small_flow(0.3), images()
    found = negative_log_likelihood(flow, x, draws=3000, seed=7)
    torch.manual_seed(7)
    with torch.no_grad():
        expected = -torch.stack([flow.log_prob(x).double() for _ in range(3000)]).mean(0)
    one = negative_log_likelihood(flow, x, draws=1, seed=7)
    assert torch.allclose(found, expected, atol=0.03)
    assert not torch.allclose(one, expected, atol=0.03)
    assert found.dtype == torch.float64


def test_score_depends_on_no_other_image() -> None:
    score = negative_log_likelihood
    torch.manual_seed(0)
    flow, x = build("glow", (1, 8, 8), 17, arguments("glow", hidden=8, depth=1)).eval(), digits().test[:40]
    together = score(flow, x)
    torch.testing.assert_close(score(flow, x[7:]), together[7:], rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(score(flow, x.flip(0)), together.flip(0), rtol=1e-6, atol=1e-4)
    # And noise is each image's own: one for all would leave their mean as uncertain as a single score.
    first, second = (score(small_flow(0.5), images(400), draws=1, seed=seed) for seed in (0, 1))
    assert abs(first.mean() - second.mean()) < (first - second).std() / 4


@pytest.mark.parametrize(("value", "said"), [(0.5, "0.5"), (4.0, "4"), (-1.0, "-1"), (math.nan, "nan")])
def test_images_of_other_values_have_no_score(value: float, said: str) -> None:
    x = images()
    x[2, 0, 1, 0] = x[3, 0, 0, 0] = value
    said = f"^row 2 of the images has the value {said}; the flow takes integers 0 ... 3$"
    with pytest.raises(ValueError, match=said):
        negative_log_likelihood(small_flow(), x)


def test_typicality_is_two_sided() -> None:
    found = typicality(torch.tensor([1.0, 3.0, 6.0]), torch.tensor([2.0, 4.0]))
    assert found.tolist() == [2.0, 0.0, 3.0]
    with pytest.raises(ValueError, match="got none"):
        typicality(torch.zeros(1), torch.zeros(0))
