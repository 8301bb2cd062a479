"""Memory of tensors and modules."""

from collections.abc import Iterable

from torch import Tensor, nn


def count_module_bytes(module: nn.Module) -> int:
    """Count the bytes of a module's parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def count_tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Count the bytes of tensors, each storage once."""
    return sum({t.untyped_storage().data_ptr(): t.nbytes for t in tensors}.values())
