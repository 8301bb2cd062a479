"""Random weights: every layer changes the output."""

import pytest
import torch

from flows.fastflow.features import FeatureExtractor
from flows.fastflow.weights import Weights
from tests.support.random_weights import random_weights


def _maps(name: str, state: dict[str, torch.Tensor], stages: tuple[int, ...]) -> torch.Tensor:
    extractor = FeatureExtractor(Weights(name, "a test", "0" * 64, state), stages)
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator())
    *_, last = extractor(images)
    found: torch.Tensor = last
    return found


@pytest.mark.parametrize(("name", "stages"), [("test_resnet", (4,)), ("test_convnext", (3,))])
def test_every_kernel_changes_the_output(name: str, stages: tuple[int, ...]) -> None:
    state = random_weights(name)
    whole = _maps(name, state, stages)
    kernels = [key for key, tensor in state.items() if tensor.ndim == 4 and "head" not in key]
    assert len(kernels) > 5
    for key in kernels:
        other = _maps(name, state | {key: torch.zeros_like(state[key])}, stages)
        assert (other - whole).abs().max() > 1e-4 * whole.abs().max(), key
