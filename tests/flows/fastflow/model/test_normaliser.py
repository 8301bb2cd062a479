"""Normalisation of feature maps: statistics of the training set, pooling with honest borders."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flows.fastflow.model.normaliser import FeatureNormaliser


def maps(n: int = 6, seed: int = 0) -> list[Tensor]:
    """Two scales of made-up features, with different means and deviations per channel."""
    generator = torch.Generator().manual_seed(seed)

    def scale(c: int, h: int, w: int) -> Tensor:
        x = torch.randn((n, c, h, w), generator=generator)
        return x * torch.logspace(-2, 1, c).view(-1, 1, 1) + torch.linspace(-5, 5, c).view(-1, 1, 1)

    return [scale(5, 6, 4), scale(3, 3, 2)]


def batches(whole: Sequence[Tensor], size: int) -> list[list[Tensor]]:
    return [[m[i : i + size] for m in whole] for i in range(0, len(whole[0]), size)]


@settings(max_examples=20)
@given(size=st.integers(1, 7), seed=st.integers(0, 1000))
def test_statistics_are_numpys_however_they_are_batched(size: int, seed: int) -> None:
    whole = maps(seed=seed)
    normaliser = FeatureNormaliser((5, 3), "channel", 1)
    normaliser.fit(batches(whole, size))
    for i, x in enumerate(whole):
        flat = x.double().numpy().transpose(1, 0, 2, 3).reshape(x.shape[1], -1)
        np.testing.assert_allclose(normaliser.get_buffer(f"mean_{i}").numpy(), flat.mean(1), rtol=1e-6)
        np.testing.assert_allclose(normaliser.get_buffer(f"std_{i}").numpy(), flat.std(1), rtol=1e-5)
    for x in normaliser(whole):
        torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(x.shape[1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(x.var((0, 2, 3), correction=0), torch.ones(x.shape[1]), rtol=1e-4, atol=0)


def test_dead_channel_becomes_zero_and_not_nan() -> None:
    x = maps()[0]
    x[:, 2] = 7.0
    normaliser = FeatureNormaliser((5,), "channel", 1)
    normaliser.fit([[x]])
    [found] = normaliser([x])
    assert torch.equal(found[:, 2], torch.zeros_like(found[:, 2]))
    assert found.isfinite().all()
    # In another image it may come alive: it then counts as it is.
    [found] = normaliser([x + 1])
    torch.testing.assert_close(found[:, 2], torch.ones_like(found[:, 2]))


@pytest.mark.parametrize("pooling", [3, 5, 15])
@pytest.mark.parametrize("size", [(6, 4), (1, 3), (2, 2)])
def test_the_border_averages_only_what_is_there(pooling: int, size: tuple[int, int]) -> None:
    x = torch.randn((2, 3, *size), generator=torch.Generator().manual_seed(0))
    [found] = FeatureNormaliser((3,), "channel", pooling)([x])
    reach = pooling // 2
    for row in range(size[0]):
        for column in range(size[1]):
            rows = slice(max(0, row - reach), row + reach + 1)
            columns = slice(max(0, column - reach), column + reach + 1)
            expected = x[:, :, rows, columns].mean((2, 3))
            torch.testing.assert_close(found[:, :, row, column], expected)


def test_the_coarsest_scale_alone_can_be_pooled() -> None:
    whole = maps()
    coarsest = FeatureNormaliser((5, 3), "channel", 3)
    every, none = (FeatureNormaliser((5, 3), "channel", window, "all") for window in (3, 1))
    assert [n.windows for n in (coarsest, every, none)] == [(1, 3), (3, 3), (1, 1)]
    for normaliser in (coarsest, every, none):
        normaliser.fit(batches(whole, 4))
    found = coarsest(whole)
    assert torch.equal(found[0], none(whole)[0])
    assert torch.equal(found[1], every(whole)[1])
    assert not torch.equal(found[0], every(whole)[0])
    # Of one scale alone, it is the coarsest.
    assert FeatureNormaliser((5,), "channel", 3).windows == (3,)


def test_layer_mode_normalises_each_image_by_itself() -> None:
    whole = maps()
    normaliser = FeatureNormaliser((5, 3), "layer", 1)
    normaliser.fit([whole])  # changes nothing in this mode
    for x, found in zip(whole, normaliser(whole), strict=True):
        flat = x.double().flatten(1)
        centred = flat - flat.mean(1, keepdim=True)
        expected = centred / (flat.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(found.flatten(1).double(), expected, rtol=1e-4, atol=1e-4)
    [alone] = FeatureNormaliser((5,), "layer", 1)([whole[0][:1]])
    torch.testing.assert_close(alone, normaliser(whole)[0][:1])


def test_statistics_of_nothing_or_of_nan_are_rejected() -> None:
    normaliser = FeatureNormaliser((5, 3), "channel", 1)
    with pytest.raises(ValueError, match="the statistics of 0 positions"):
        normaliser.fit([])
    bad = maps()
    bad[1][0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"scale 1: the statistics of 36 positions .* not finite"):
        normaliser.fit([bad])
