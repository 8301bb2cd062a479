"""What is found in a picture, put together."""

import numpy as np
import pytest
import torch

from flows.fastflow.scored import Scored, by_all_heads, by_one_head, statistics_of


def test_statistics_are_means_and_deviations_scale_by_scale() -> None:
    numbers = torch.randn(3, 2, 1000) * torch.tensor([[2.0], [0.1]])
    found = statistics_of(numbers.mean(2), numbers.square().mean(2))
    for row, of_picture in zip(found, numbers, strict=True):
        expected = [f(x).item() for x in of_picture for f in (torch.mean, lambda y: y.std(correction=0))]
        assert row == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_a_deviation_is_never_the_root_of_a_rounding_below_0() -> None:
    mean = torch.full((1, 1), 1000.1)
    [(average, deviation)] = statistics_of(mean, mean.square() - 1)
    assert average == pytest.approx(1000.1)
    assert deviation == 0


def test_one_head_speaks_for_itself() -> None:
    maps = [np.full((2, 2), i, np.float32) for i in range(2)]
    first, second = by_one_head([(1.0, maps[0]), (2.0, maps[1])], [0.5, None], [(0.1, 0.2), (0.3, 0.4)])
    assert (first.score, first.by_head, first.picture, first.statistics) == (1.0, (1.0,), 0.5, (0.1, 0.2))
    assert second.score_map is maps[1]
    assert second.picture is None
    assert by_all_heads([first]) is first


def test_several_heads_are_their_mean() -> None:
    zero, two = (np.full((2, 2), value, np.float32) for value in (0, 2))
    found = by_all_heads(
        [Scored(1.0, (1.0,), zero, 0.5, (0.0, 1.0)), Scored(4.0, (4.0,), two, 1.5, (2.0, 3.0))]
    )
    assert (found.score, found.by_head, found.picture) == (2.5, (1.0, 4.0), 1.0)
    assert found.statistics == (1.0, 2.0)
    assert found.score_map.dtype == np.float32
    np.testing.assert_array_equal(found.score_map, np.ones((2, 2)))


def test_of_a_region_no_head_has_the_whole_picture() -> None:
    score_map = np.zeros((2, 2), np.float32)
    found = by_all_heads([Scored(s, (s,), score_map, None, (0.0, 1.0)) for s in (1.0, 4.0)])
    assert found.picture is None
