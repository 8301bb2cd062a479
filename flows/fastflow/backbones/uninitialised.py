"""Layers whose weights are loaded right after they are built need no weights of chance before."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

# Of torch.nn.init those that draw and ask modes first. What else it and timm have comes down to the tensors'.
_DRAW: Final = frozenset(
    {init.kaiming_uniform_, init.normal_, init.uniform_, Tensor.normal_, Tensor.uniform_}
)


class Uninitialised(TorchFunctionMode):
    """Inside it nothing is drawn into tensors: they keep whatever lay in their memory.

    Drawing is most of what building a backbone takes. Whoever builds so must fill every parameter, and see
    to it that none is missing. Holds for the thread that enters it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type[Any]],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call what draws nothing, and give back the tensor that would have been drawn into."""
        del types
        kwargs = kwargs or {}
        if func in _DRAW:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
