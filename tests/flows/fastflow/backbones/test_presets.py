"""Presets: what the paper published, and that every one of them fits its backbone."""

import pytest
import torch

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.presets import PAPER, PRESETS, Preset, get_preset
from flows.fastflow.config import FlowConfig
from flows.fastflow.model.head import Head
from tests.support.random_weights import build_on_meta
from training.config.load_config import load_config

# Of arXiv 2111.07677: side of the input, stages or blocks, steps, kernels, hidden ratio.
PUBLISHED = {
    "resnet18": (256, (1, 2, 3), 8, "3", 1.0),
    "wide_resnet50_2": (256, (1, 2, 3), 8, "3-1", 1.0),
    "deit_base_distilled_patch16_384": (384, (7,), 20, "3-1", 0.16),
    "cait_m48_448": (448, (40,), 20, "3-1", 0.16),
}
# Per scale the steps' couplings, c1 h k^2 + h + 2 h c2 k^2 + 2 c2 with h = int(c1 ratio), and 2 C.
PARAMETERS = {
    "resnet18": 4_657_408,
    "wide_resnet50_2": 41_337_856,
    "deit_base_distilled_patch16_384": 7_074_500,
    "cait_m48_448": 7_074_500,
}


def described(
    backbone: str, out_indices: tuple[int, ...], size: tuple[int, int]
) -> tuple[FeatureExtractor, list[torch.Size]]:
    """A backbone without numbers and the shapes of its maps of two images; the paper's stand here twice."""
    extractor = build_on_meta(backbone, out_indices, size)
    maps = extractor(torch.empty(2, *size, 3, dtype=torch.uint8, device="meta"))
    return extractor, [m.shape for m in maps]


def flow(found: Preset) -> FlowConfig:
    return FlowConfig.model_validate(found.sections.get("flow", {}))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("prefix", ["", PAPER])
def test_the_papers_are_as_published(prefix: str, name: str) -> None:
    side, indices, steps, kernels, ratio = PUBLISHED[name]
    found = get_preset(prefix + name)
    assert (found.backbone, found.input_size, found.out_indices) == (name, (side, side), indices)
    shape = flow(found)
    assert (shape.steps, shape.kernels, shape.hidden_ratio) == (steps, kernels, ratio)
    assert shape.hidden_limit is None


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_a_step_on_the_meta_device(name: str) -> None:
    """Shapes alone: what numbers do is tested with a few of them here, and with all in the slow tests."""
    found = PRESETS[name]
    extractor, shapes = described(found.backbone, found.out_indices, found.input_size)
    assert [shape[1] for shape in shapes] == list(extractor.channels)
    for shape, stride in zip(shapes, extractor.strides, strict=True):
        assert shape[2:] == tuple(-(-side // stride) for side in found.input_size)
    with torch.device("meta"):
        head = Head(extractor.channels, load_config(None, preset=name).normalisation, flow(found))
        losses = head.flow.nll(head.normaliser([torch.empty(shape) for shape in shapes]))
    torch.autograd.backward(torch.stack(losses).sum())
    assert all(p.grad is not None and p.grad.shape == p.shape for p in head.flow.parameters())
    torch.optim.Adam(head.flow.parameters()).step()
    if found.backbone in PARAMETERS:
        assert sum(p.numel() for p in head.flow.parameters()) == PARAMETERS[found.backbone]
