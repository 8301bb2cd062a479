"""Weights of chance: every layer has a part in what comes out."""

import pytest
import torch

from bench.chance import weights_of_chance
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.weights import Weights

ARCHITECTURES = [("test_resnet", (4,)), ("test_convnext", (3,)), ("test_efficientnet", (4,))]


def _maps(name: str, state: dict[str, torch.Tensor], stages: tuple[int, ...]) -> torch.Tensor:
    extractor = FeatureExtractor(Weights(name, "a test", "0" * 64, state), stages)
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator())
    *_, last = extractor(images)
    found: torch.Tensor = last
    return found


@pytest.mark.parametrize(("name", "stages"), ARCHITECTURES)
def test_every_weight_changes_what_comes_out(name: str, stages: tuple[int, ...]) -> None:
    state = weights_of_chance(name)
    whole = _maps(name, state, stages)
    assert whole.isfinite().all()
    kernels = [key for key, tensor in state.items() if tensor.ndim == 4 and "head" not in key]
    assert len(kernels) > 5
    for key in kernels:
        other = _maps(name, state | {key: torch.zeros_like(state[key])}, stages)
        assert (other - whole).abs().max() > 1e-4 * whole.abs().max(), key


def test_a_seed_is_a_backbone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (weights_of_chance("test_resnet", seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["layer1.0.bn2.weight"], other["layer1.0.bn2.weight"])
    # Counts stay counts, and what was not silent stays as timm begins it.
    assert first["bn1.num_batches_tracked"].dtype == torch.int64
    assert first["bn1.weight"].eq(1).all()
