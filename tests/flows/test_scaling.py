"""Affine map per channel."""

import numpy as np
import pytest
import torch

from flows import ChannelAffine


@pytest.mark.parametrize(("size", "positions"), [((), 1), ((2, 3), 6), ((5, 1), 5)])
def test_channel_affine_matches_formula(size: tuple[int, ...], positions: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, *size))
    log_scale, shift = rng.normal(size=4), rng.normal(size=4)
    affine = ChannelAffine(4).double()
    affine.load_state_dict({"log_scale": torch.tensor(log_scale), "shift": torch.tensor(shift)})
    z, log_det = affine.forward(torch.tensor(x))
    for c in range(4):
        np.testing.assert_allclose(
            z[:, c].detach().numpy(), np.exp(log_scale[c]) * x[:, c] + shift[c], rtol=1e-14
        )
    np.testing.assert_allclose(log_det.detach().numpy(), 3 * [positions * log_scale.sum()], rtol=1e-14)
