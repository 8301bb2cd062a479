"""Squeeze."""

import pytest
import torch

from flows import Squeeze


def test_each_block_becomes_four_channels() -> None:
    x = torch.arange(2 * 16.0).view(1, 2, 4, 4)
    z, log_det = Squeeze(2).forward(x)
    assert z.shape == (1, 8, 2, 2)
    assert z[0, :, 0, 1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23]
    assert log_det.tolist() == [0]
    assert torch.equal(Squeeze(2).inverse(z)[0], x)


@pytest.mark.parametrize("size", [(3, 4), (4, 3), (1, 2)])
def test_odd_sizes_are_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected an even height and width; got"):
        Squeeze(1).forward(torch.zeros(1, 1, *size))
