"""Weights rounded together: bfloat16 holds them, and what they compute hardly changes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from flows.fastflow import rounding
from flows.fastflow.rounding import gram, nearest, portions, probe, round_together


def inputs_and_weights(groups: int = 1, outputs: int = 12, inputs: int = 40) -> tuple[Tensor, Tensor]:
    """Of a layer: correlated inputs around a mean, (groups, inputs, 500), and weights of chance."""
    chance = torch.Generator().manual_seed(0)
    hidden = torch.randn(groups, 5, 500, generator=chance)
    mixed = torch.randn(groups, inputs, 5, generator=chance) @ hidden
    x = mixed + 0.3 * torch.randn(groups, inputs, 500, generator=chance) + 1
    return x, torch.randn(groups, outputs, inputs, generator=chance)


def error(rounded: Tensor, weight: Tensor, x: Tensor) -> float:
    """Root mean square of what rounding changes about a layer's outputs."""
    return float(((rounded - weight) @ x).square().mean().sqrt())


class TestProbe:
    @pytest.mark.parametrize("size", [(64, 64), (61, 250), (32, 33)])
    def test_is_a_picture_of_the_size_asked_for(self, size: tuple[int, int]) -> None:
        picture = probe(0, size)
        assert picture.shape == (*size, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 10

    def test_is_the_same_every_time_and_another_by_every_number(self) -> None:
        assert np.array_equal(probe(3, (64, 64)), probe(3, (64, 64)))
        assert not np.array_equal(probe(3, (64, 64)), probe(4, (64, 64)))

    def test_has_most_of_its_power_at_low_frequencies(self) -> None:
        spectrum = np.abs(np.fft.fft2(probe(0, (128, 128)).mean(2) - 128)) ** 2
        low, high = spectrum[1:4, 1:4].mean(), spectrum[40:60, 40:60].mean()
        assert low > 100 * high


class TestGram:
    @pytest.mark.parametrize(
        ("groups", "kernel", "stride", "padding", "dilation"),
        [
            (1, (1, 1), (1, 1), (0, 0), (1, 1)),
            (1, (1, 1), (2, 2), (0, 0), (1, 1)),
            (1, (3, 3), (2, 1), (1, 1), (1, 1)),
            (2, (3, 1), (1, 1), (1, 0), (1, 1)),
            (6, (5, 5), (2, 2), (2, 2), (1, 1)),
            (6, (3, 3), (1, 1), (2, 2), (2, 2)),
        ],
    )
    def test_tells_how_large_a_convolutions_outputs_are(
        self,
        groups: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> None:
        chance = torch.Generator().manual_seed(0)
        x = torch.randn(2, 6, 12, 10, generator=chance)
        weight = torch.randn(6, 6 // groups, *kernel, generator=chance)
        expected = F.conv2d(x, weight, None, stride, padding, dilation, groups).square().sum((0, 2, 3))
        found = gram(x, groups, kernel, stride=stride, padding=padding, dilation=dilation)
        flat = weight.reshape(groups, 6 // groups, -1).double()
        energies = torch.einsum("gok,gkl,gol->go", flat, found, flat).flatten()
        torch.testing.assert_close(energies.float(), expected, rtol=1e-4, atol=1e-4)

    def test_takes_no_more_positions_than_it_needs(self) -> None:
        x = torch.ones(1, 1, 100, 100)
        [[[count]]] = gram(x, 1, (1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1)).tolist()
        assert count == 1024

    def test_takes_them_from_everywhere(self) -> None:
        """Every so many-th would all lie in a few columns where a map is as wide as a multiple of it."""
        columns = F.one_hot(torch.arange(128)).float().t().reshape(1, 128, 1, 128)
        x = columns.expand(1, 128, 128, 128)
        found = gram(x, 1, (1, 1), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
        assert (found[0].diagonal() > 0).all()
        assert found[0].diagonal().max() < 24


class TestPortions:
    def test_are_of_no_more_bytes_than_are_held(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rounding, "_HELD", 8 * 250)
        assert portions([(1, 10), (1, 12), (5, 2), (1, 30)]) == [[2, 0], [1], [3]]

    def test_leave_out_the_largest_where_there_is_no_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rounding, "_MOST_WORK", 3000)
        assert portions([(1, 13), (2, 10), (1, 9), (1, 14)]) == [[2, 1]]

    def test_of_nothing_there_are_none(self) -> None:
        assert portions([]) == []

    @pytest.mark.usefixtures("time_to_round")
    def test_hold_all_of_a_resnet18(self) -> None:
        shapes = [(1, 576)] * 3 + [(1, 1152)] * 4 + [(1, 2304)] * 3
        assert sorted(place for portion in portions(shapes) for place in portion) == list(range(10))


class TestRoundTogether:
    @pytest.mark.parametrize(
        ("groups", "outputs", "inputs", "share"),
        # Of few weights fewer are left to make up for the others.
        [(1, 12, 40, 0.6), (7, 1, 9, 0.9), (2, 3, 200, 0.6)],
    )
    def test_changes_outputs_less_than_each_weight_by_itself(
        self, groups: int, outputs: int, inputs: int, share: float
    ) -> None:
        x, weight = inputs_and_weights(groups, outputs, inputs)
        rounded = round_together(weight, (x @ x.transpose(1, 2)).double())
        assert torch.equal(rounded, nearest(rounded))
        assert rounded.shape == weight.shape
        assert error(rounded, weight, x) < share * error(nearest(weight), weight, x)

    def test_leaves_what_bfloat16_holds(self) -> None:
        x, weight = inputs_and_weights()
        weight = nearest(weight)
        assert torch.equal(round_together(weight, (x @ x.transpose(1, 2)).double()), weight)

    def test_is_the_same_in_blocks_of_any_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, weight = inputs_and_weights()
        covered = (x @ x.transpose(1, 2)).double()
        expected = round_together(weight, covered)
        monkeypatch.setattr(rounding, "_BLOCK", 7)
        assert torch.equal(round_together(weight, covered), expected)

    def test_of_inputs_that_are_always_0_the_nearest(self) -> None:
        _, weight = inputs_and_weights()
        covered = torch.zeros(1, 40, 40, dtype=torch.float64)
        assert torch.equal(round_together(weight, covered), nearest(weight))
        covered[0, 0, 0] = 5.0
        assert torch.equal(round_together(weight, covered), nearest(weight))

    def test_of_what_is_no_number_the_nearest(self) -> None:
        x, weight = inputs_and_weights()
        covered = (x @ x.transpose(1, 2)).double()
        strange = weight.clone()
        strange[0, 0, 0] = torch.inf
        assert torch.equal(round_together(strange, covered), nearest(strange))
        covered[0, 0, 0] = torch.nan
        assert torch.equal(round_together(weight, covered), nearest(weight))
