"""Building of layers without random weights, for weights that are loaded right after."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

# Functions of torch.nn.init that draw and respect modes. Others, and timm's, call the tensors' methods.
_DRAW: Final = frozenset(
    {init.kaiming_uniform_, init.normal_, init.uniform_, Tensor.normal_, Tensor.uniform_}
)


class Uninitialised(TorchFunctionMode):
    """Context in which random initialisation is skipped: tensors keep the content of their memory.

    Random numbers take most of the time to build a backbone. The caller must fill every parameter. The
    context applies to the thread that enters it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type[Any]],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call functions that do not draw; return the tensor unchanged for those that do."""
        del types
        kwargs = kwargs or {}
        if func in _DRAW:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
