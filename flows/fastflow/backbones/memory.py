"""The memory that tensors take."""

from collections.abc import Iterable

from torch import Tensor, nn


def count_module_bytes(module: nn.Module) -> int:
    """Memory of a module's parameters and buffers, in bytes."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def count_tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Memory of tensors, in bytes, each counted once however often it is among them."""
    return sum({t.untyped_storage().data_ptr(): t.nbytes for t in tensors}.values())
