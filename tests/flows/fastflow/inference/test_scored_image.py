"""What is found in an image, put together."""

import pytest
import torch

from flows.fastflow.inference.scored_image import feature_statistics


def test_statistics_are_means_and_deviations_scale_by_scale() -> None:
    numbers = torch.randn(3, 2, 1000) * torch.tensor([[2.0], [0.1]])
    found = feature_statistics(numbers.mean(2), numbers.square().mean(2))
    for row, of_picture in zip(found, numbers, strict=True):
        expected = [f(x).item() for x in of_picture for f in (torch.mean, lambda y: y.std(correction=0))]
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_deviation_is_never_the_root_of_a_rounding_below_0() -> None:
    mean = torch.full((1, 1), 1000.1)
    [(average, deviation)] = feature_statistics(mean, mean.square() - 1)
    assert average == pytest.approx(1000.1)
    assert deviation == 0
