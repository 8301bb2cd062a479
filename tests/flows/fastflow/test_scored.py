"""What is found in a picture, put together."""

import numpy as np
import pytest
import torch

from flows.fastflow import scored
from flows.fastflow.counting import counted
from flows.fastflow.geometry import Geometry
from flows.fastflow.regions import Regions
from flows.fastflow.score import ScoreRule, image_score, picture_part, positions_part
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


FLOW = [torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(side)) for side in (8, 4)]
PICTURE = torch.tensor([[0.4, 3.0], [0.5, 0.5]])
WHERE = Geometry().layout((64, 64), (64, 64), (8, 16))
SIDES = [(8, 8), (4, 4)]


def of_two(masks: Regions) -> list[Scored]:
    """What one head finds in two pictures."""
    maps = [np.full((64, 64), 1 + i, np.float32) for i in range(2)]
    rows = [(0.1, 0.2), (0.3, 0.4)]
    counts = [counted(WHERE, SIDES, mask) for mask in masks]
    return by_one_head(FLOW, maps, PICTURE, rows, ScoreRule(), counts, masks)


def test_one_head_speaks_for_itself() -> None:
    first, second = of_two([None, None])
    expected = image_score(FLOW, ScoreRule(), PICTURE).tolist()
    assert [first.score, second.score] == pytest.approx(expected, rel=1e-6)
    assert first.by_head == (first.score,)
    assert first.picture == pytest.approx(picture_part(PICTURE, ScoreRule())[0].item(), rel=1e-6)
    assert [first.statistics, second.statistics] == [(0.1, 0.2), (0.3, 0.4)]
    assert (second.score_map == 2).all()
    assert by_all_heads([first]) is first


def test_of_a_region_its_positions_count_and_not_the_whole_picture() -> None:
    region = np.zeros((64, 64), np.bool_)
    region[:20, :20] = True
    first, second = of_two([None, region])
    assert first.score == of_two([None, None])[0].score
    assert second.picture is None
    inside = [torch.zeros_like(q[1:], dtype=torch.bool) for q in FLOW]
    inside[0][..., :3, :3] = inside[1][..., :2, :2] = True
    expected = positions_part([q[1:] for q in FLOW], ScoreRule(), inside).item()
    assert second.score == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(second.score_map, np.where(region, np.float32(2), np.float32(0)))
    everything = np.ones((64, 64), np.bool_)
    assert [s.score for s in of_two([everything] * 2)] == [s.score for s in of_two([None] * 2)]


def test_on_a_device_as_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU does, by torch on whatever there is."""
    region = np.zeros((64, 64), np.bool_)
    region[10:50, 30:] = True
    for masks in ([None, None], [None, region]):
        expected = of_two(masks)
        with monkeypatch.context() as patch:
            patch.setattr(scored, "_on_cpu", lambda _: False)
            found = of_two(masks)
        assert [s.score for s in found] == pytest.approx([s.score for s in expected], rel=1e-6)
        assert [s.picture is None for s in found] == [s.picture is None for s in expected]


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
