"""Reordering of channels."""

from collections import Counter

import pytest
import torch

from flows import Compose, Permutation


@pytest.mark.parametrize("size", [(), (2, 3)])
def test_channel_i_of_the_result_is_channel_index_i_of_the_input(size: tuple[int, ...]) -> None:
    index = [2, 0, 3, 1]
    x = torch.randn(3, 4, *size)
    z, log_det = Permutation(index).forward(x)
    for i, source in enumerate(index):
        assert torch.equal(z[:, i], x[:, source])
    assert log_det.tolist() == [0, 0, 0]


def test_its_inverse_is_exact() -> None:
    x = torch.randn(2, 7, 3, 3)
    permutation = Permutation.random(7)
    assert torch.equal(permutation.inverse(permutation.forward(x)[0])[0], x)
    assert torch.equal(permutation.forward(permutation.inverse(x)[0])[0], x)


def test_all_orders_come_up_equally_often() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = Counter(tuple(Permutation.random(3, generator).index.tolist()) for _ in range(1200))
    assert len(counts) == 6
    # Chi-squared with 5 degrees of freedom is beyond 20.5 once in a thousand.
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 20.5


def test_a_generator_fixes_the_order() -> None:
    one, two = (Permutation.random(50, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one.index, two.index)
    assert not torch.equal(one.index, Permutation.random(50, torch.Generator().manual_seed(8)).index)


@pytest.mark.parametrize("index", [[0, 0], [1, 2], [-1, 0], [0, 2], [[0, 1]], [0.2, 1.7]])
def test_what_is_not_a_permutation_is_refused(index: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected each of 0\.\.C-1 exactly once; got \["):
        Permutation(index)


def test_what_is_loaded_must_be_a_permutation() -> None:
    """An average of models that averages buffers too rounds an index down."""
    permutation = Permutation([2, 0, 3, 1])
    chain = Compose([Permutation.random(4), Permutation.random(4)])
    chain.load_state_dict({"transforms.0.index": permutation.index, "transforms.1.index": permutation.index})
    for assign in (False, True):
        with pytest.raises(ValueError, match=r"Permutation expected each of 0\.\.C-1 .*; got \[2, 0, 2, 1\]"):
            chain.load_state_dict(
                {"transforms.1.index": torch.tensor([2, 0, 2, 1])}, strict=False, assign=assign
            )


def test_an_index_without_numbers_is_loaded_unseen() -> None:
    permutation = Permutation([1, 0]).to("meta")
    permutation.load_state_dict({"index": torch.empty(2, dtype=torch.int64, device="meta")})
    permutation.load_state_dict({"index": torch.tensor([1, 0])}, assign=True)
    assert permutation.forward(torch.tensor([[1, 2]]))[0].tolist() == [[2, 1]]


def test_its_state_is_the_index_alone() -> None:
    state = Permutation.random(5).state_dict()
    assert {key: (value.shape, value.dtype) for key, value in state.items()} == {"index": ((5,), torch.int64)}


def test_it_can_be_made_where_there_is_no_memory_for_weights() -> None:
    with torch.device("meta"):
        permutation = Permutation.random(4)
        assert permutation.forward(torch.empty(3, 4))[0].device.type == "meta"
        with pytest.raises(ValueError, match="exactly once"):
            Permutation([0, 2])


def test_reversing_puts_the_last_first() -> None:
    assert Permutation.reversing(4).forward(torch.tensor([[1, 2, 3, 4]]))[0].tolist() == [[4, 3, 2, 1]]
