"""Permutation of channels."""

import pytest
import torch

from flows import Compose, Permutation


@pytest.mark.parametrize("size", [(), (2, 3)])
def test_permutation_gathers_channels_by_index(size: tuple[int, ...]) -> None:
    index = [2, 0, 3, 1]
    x = torch.randn(3, 4, *size)
    z, log_det = Permutation(index).forward(x)
    for i, source in enumerate(index):
        assert torch.equal(z[:, i], x[:, source])
    assert log_det.tolist() == [0, 0, 0]


def test_generator_fixes_the_order() -> None:
    one, two = (Permutation.random(50, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one.index, two.index)
    assert not torch.equal(one.index, Permutation.random(50, torch.Generator().manual_seed(8)).index)


def test_loaded_index_must_be_a_permutation() -> None:
    """Averaging models with their buffers rounds an index down."""
    permutation = Permutation([2, 0, 3, 1])
    chain = Compose([Permutation.random(4), Permutation.random(4)])
    chain.load_state_dict({"transforms.0.index": permutation.index, "transforms.1.index": permutation.index})
    for assign in (False, True):
        with pytest.raises(ValueError, match=r"Permutation expected each of 0\.\.C-1 .*; got \[2, 0, 2, 1\]"):
            chain.load_state_dict(
                {"transforms.1.index": torch.tensor([2, 0, 2, 1])}, strict=False, assign=assign
            )
