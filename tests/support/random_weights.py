"""Random weights for backbones in which every layer changes the output.

timm initialises many residual branches with a last gain of 0 or a scale of 1e-5: an optimiser may leave such
a branch out, and no test sees what it computes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from flows.fastflow.backbones.features import FeatureExtractor

_SILENT = 1e-2  # gains and scales at most so large


def random_weights(name: str, seed: int = 0, **settings: Any) -> dict[str, Tensor]:
    """Random tensors of a timm architecture, by name; torch's generator is left as it was.

    Gains are from .5 to 1.5 where they would silence a branch, and so are the variances that normalisations
    of batches have seen; their means are from -.2 to .2.
    """
    import timm  # takes a second, which programs that are timed need not

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = dict(timm.create_model(name, pretrained=False, **settings).state_dict())
        for key, tensor in state.items():
            if key.endswith("running_mean"):
                state[key] = torch.empty_like(tensor).uniform_(-0.2, 0.2)
            elif key.endswith("running_var") or (_is_gain(key) and tensor.abs().max() <= _SILENT):
                state[key] = torch.empty_like(tensor).uniform_(0.5, 1.5)
    return state


def build_on_meta(name: str, out_indices: Sequence[int], input_size: tuple[int, int]) -> "FeatureExtractor":
    """A feature extractor on the meta device: shapes without numbers."""
    import timm

    from flows.fastflow.backbones.features import FeatureExtractor
    from flows.fastflow.backbones.weights import Weights

    with torch.device("meta"):
        state: dict[str, Tensor] = dict(timm.create_model(name, pretrained=False).state_dict())
        return FeatureExtractor(Weights(name, "nowhere", "0" * 64, state), out_indices, input_size)


def _is_gain(key: str) -> bool:
    return key.rpartition(".")[2].startswith(("weight", "gamma"))
