"""Interpolation through the latents: its ends and its path."""

import math

import pytest
import torch

from training.density.interpolate import interpolate, slerp
from training.density.named_recipes import RECIPES, arguments, build


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_ends_are_the_images(recipe: str) -> None:
    torch.manual_seed(0)
    flow = build(recipe, (1, 4, 4), 17, arguments(recipe, hidden=8, depth=1))
    x = torch.randint(17, (12, 1, 4, 4)).float()
    with torch.no_grad():
        flow.train().log_prob(x)
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    flow.eval()
    ways = interpolate(flow, x[:6], x[6:], 5)
    assert ways.shape == (6, 5, 1, 4, 4)
    assert torch.equal(ways[:, 0], x[:6])
    assert torch.equal(ways[:, -1], x[6:])


def test_the_way_stays_at_the_latents_distance() -> None:
    a, b = torch.randn(2, 50, 200, dtype=torch.float64)
    b = b * a.norm(dim=1, keepdim=True) / b.norm(dim=1, keepdim=True)
    for t in (0.0, 0.1, 0.5, 0.9, 1.0):
        torch.testing.assert_close(slerp(a, b, t).norm(dim=1), a.norm(dim=1))
    assert (((a + b) / 2).norm(dim=1) < 0.9 * a.norm(dim=1)).all()  # where the straight line would be


def test_angles_grow_evenly() -> None:
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    angle = math.pi / 6
    expected = torch.tensor([[math.sin(math.pi / 2 - angle), 2 * math.sin(angle)]])
    torch.testing.assert_close(slerp(a, b, 1 / 3), expected)
