"""Gaussians of positions and of images, against NumPy's and scikit-learn's."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from torch import Tensor

from flows.fastflow.model.gaussian import ImageGaussian, PositionGaussian

Array = NDArray[np.float64]


def mixed(n: int, channels: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Made-up features (N, C, H, W) whose channels are correlated, of unlike means and deviations."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn((channels, channels), generator=generator) / channels**0.5
    mixing += torch.diag(torch.linspace(0.5, 2, channels))
    x = torch.randn((n, channels, *size), generator=generator)
    # Each image is a little off as a whole, as real ones are.
    x += 0.5 * torch.randn((n, channels, 1, 1), generator=generator)
    return torch.einsum("cd,ndhw->nchw", mixing, x) + torch.linspace(-1, 1, channels).view(-1, 1, 1)


def pyramid(n: int = 12, seed: int = 0) -> list[Tensor]:
    return [
        mixed(n, c, size, seed + i) for i, (c, size) in enumerate([(6, (8, 6)), (4, (4, 3)), (5, (2, 2))])
    ]


def batches(whole: Sequence[Tensor], size: int) -> list[list[Tensor]]:
    return [[m[i : i + size] for m in whole] for i in range(0, len(whole[0]), size)]


def rows(x: Tensor) -> Array:
    """Every position as a row, (N H W, C), in double precision."""
    return np.asarray(x.double().permute(0, 2, 3, 1).reshape(-1, x.shape[1]).numpy())


def energy(x: Array, mean: Array, covariance: Array) -> Array:
    offset = x - mean
    return np.asarray((offset * np.linalg.solve(covariance, offset.T).T).sum(1) / (2 * x.shape[1]))


def shrunk(x: Array) -> Array:
    """The covariance of rows with its correlations shrunk by channels over rows."""
    covariance = np.cov(x.T, bias=True)
    share = min(1.0, x.shape[1] / len(x))
    return np.asarray((1 - share) * covariance + share * np.diag(np.diag(covariance)))


def descriptions(x: Tensor) -> Array:
    """Mean and deviation of every channel of every image, (N, 2 C)."""
    array = x.double().numpy()
    return np.concatenate([array.mean((2, 3)), array.std((2, 3))], 1)


class TestPosition:
    @settings(max_examples=20)
    @given(size=st.integers(1, 13), seed=st.integers(0, 1000))
    def test_energy_is_half_squared_mahalanobis_per_channel(self, size: int, seed: int) -> None:
        fitted, others = pyramid(seed=seed), pyramid(n=3, seed=seed + 50)
        model = PositionGaussian((6, 4, 5))
        model.fit(batches(fitted, size))
        for x, y, found in zip(fitted, others, model(others), strict=True):
            expected = energy(rows(y), rows(x).mean(0), shrunk(rows(x))).reshape(found.shape)
            assert found.shape == (3, *y.shape[2:])
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)

    @pytest.mark.parametrize("size", [1, 5, 12])
    def test_positions_have_own_means_and_shared_covariance(self, size: int) -> None:
        fitted, others = pyramid(), pyramid(n=3, seed=50)
        places = torch.randn(6, 8, 6, generator=torch.Generator().manual_seed(1))
        fitted[0], others[0] = fitted[0] + 3 * places, others[0] + 3 * places
        sizes = [(8, 6), (4, 3), (2, 2)]
        model = PositionGaussian((6, 4, 5), sizes)
        model.fit(batches(fitted, size))
        for i, (x, y, found) in enumerate(zip(fitted, others, model(others), strict=True)):
            mean = x.double().mean(0)
            left, offset = rows(x - mean), rows(y - mean)
            n = len(left) - mean[0].numel()
            covariance = left.T @ left / n
            share = min(1.0, len(covariance) / n)
            covariance = (1 - share) * covariance + share * np.diag(np.diag(covariance))
            expected = energy(offset, np.zeros(len(covariance)), covariance).reshape(found.shape)
            torch.testing.assert_close(model.get_buffer(f"mean_{i}"), mean.float(), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)

    def test_maps_of_other_sizes_are_rejected(self) -> None:
        model = PositionGaussian((6,), [(4, 4)])
        with pytest.raises(ValueError, match=r"expected maps of \(\(4, 4\),\); got \(\(4, 5\),\)"):
            model([torch.zeros(1, 6, 4, 5)])

    @pytest.mark.parametrize("positions", [2, 10, 63])
    def test_fewer_positions_than_channels_keep_only_the_variances(self, positions: int) -> None:
        """The correlation is then the identity: invertible, and blind to what so few cannot tell."""
        x = mixed(1, 64, (1, positions))
        model = PositionGaussian((64,))
        model.fit([[x]])
        other = mixed(2, 64, (3, 3), seed=1)
        mean, variance = rows(x).mean(0), rows(x).var(0)
        expected = (((rows(other) - mean) ** 2) / variance).mean(1) / 2
        np.testing.assert_allclose(model([other])[0].numpy().ravel(), expected, rtol=1e-3)

    @pytest.mark.parametrize("value", [0.0, 7.0])
    def test_dead_channel_does_not_turn_rounding_into_an_anomaly(self, value: float) -> None:
        x = mixed(20, 6, (8, 8))
        x[:, 2] = value
        model = PositionGaussian((6,))
        model.fit([[x]])
        [before] = model([x])
        assert before.mean().item() == pytest.approx(0.5 * 5 / 6, rel=0.1)  # of five channels that vary
        rounded = x.clone()
        rounded[:, 2] += 1e-5
        torch.testing.assert_close(model([rounded])[0], before, rtol=1e-2, atol=1e-2)
        # It counts where it comes alive, and more than any other channel would.
        alive = x.clone()
        alive[:, 2] += 1.0
        assert (model([alive])[0] > 100 * before.max()).all()

    def test_constant_direction_does_not_blow_up(self) -> None:
        """Two channels that are the same have a correlation without an inverse."""
        x = mixed(40, 5, (16, 16))
        x[:, 3] = x[:, 1]
        model = PositionGaussian((5,))
        model.fit([[x]])
        [found] = model([x])
        assert found.isfinite().all()
        assert found.mean().item() == pytest.approx(0.4, rel=0.05)  # four channels of five are told apart
        assert model.get_buffer("whitening_0").abs().max() < 2e3


class TestPicture:
    @settings(max_examples=10)
    @given(size=st.integers(1, 13), seed=st.integers(0, 1000))
    def test_energies_are_those_of_scikit_learns_ledoit_and_wolf(self, size: int, seed: int) -> None:
        """Of mean and deviation of each channel, brought to deviation 1 before they are shrunk."""
        fitted, others = pyramid(seed=seed), pyramid(n=3, seed=seed + 50)
        model = ImageGaussian((6, 4, 5))
        model.fit(batches(fitted, size))
        found = model(others)
        assert found.shape == (3, 2)
        for i in range(2):
            x, y = descriptions(fitted[1 + i]), descriptions(others[1 + i])
            mean, std = x.mean(0), x.std(0)
            estimate = LedoitWolf(assume_centered=True).fit((x - mean) / std)
            expected = estimate.mahalanobis((y - mean) / std) / (2 * x.shape[1])
            np.testing.assert_allclose(found[:, i].numpy(), expected, rtol=1e-3)

    @pytest.mark.parametrize("channels", [(6,), (6, 4), (6, 4, 5), (3, 6, 4, 5)])
    def test_it_looks_at_the_two_coarsest_scales_or_the_only_one(self, channels: tuple[int, ...]) -> None:
        maps = [mixed(12, c, (4, 4), i) for i, c in enumerate(channels)]
        model = ImageGaussian(channels)
        model.fit([maps])
        before = model(maps)
        assert before.shape == (12, min(2, len(channels)))
        for i in range(len(channels)):
            changed = [x + 10 if i == j else x for j, x in enumerate(maps)]
            seen = [bool(s) for s in (model(changed) > before).all(0)]
            assert seen == [j == i for j in range(max(0, len(channels) - 2), len(channels))]


@pytest.mark.parametrize(
    ("kind", "scale", "of"), [(PositionGaussian, 1, "144 positions"), (ImageGaussian, 2, "12 images")]
)
def test_nothing_and_what_is_not_finite_are_rejected(
    kind: type[PositionGaussian | ImageGaussian], scale: int, of: str
) -> None:
    model = kind((6, 4, 5))
    with pytest.raises(ValueError, match=f"scale 0: the covariance of 0 {of.split()[1]}"):
        model.fit([])
    for value in (torch.nan, torch.inf):
        bad = pyramid()
        bad[scale][3, 2, 1, 1] = value
        with pytest.raises(ValueError, match=f"scale 1: the covariance of {of} .* is not finite"):
            model.fit(batches(bad, 5))
