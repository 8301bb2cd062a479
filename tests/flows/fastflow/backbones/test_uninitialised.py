"""What is built to be filled draws nothing: no time for it, and no numbers that others would have drawn."""

import pytest
import torch

from flows.fastflow.backbones.features import FeatureExtractor
from tests.flows.fastflow.untrained import weights


@pytest.mark.parametrize(
    ("name", "out_indices"),
    [("tf_efficientnet_lite0", (2, 3)), ("resnet10t", (1, 2)), ("vit_tiny_patch16_224", (1, 3))],
)
def test_backbone_holds_its_weights_and_nothing_of_chance(name: str, out_indices: tuple[int, ...]) -> None:
    found = weights(name=name)
    before = torch.get_rng_state()
    extractor = FeatureExtractor(found, out_indices)
    assert torch.equal(torch.get_rng_state(), before)
    prefix = "backbone.model." if name.startswith("vit") else "backbone."
    held = {key: value for key, value in extractor.state_dict().items() if key.startswith("backbone.")}
    # timm takes others than transformers apart, and then "blocks.0.conv" may be "blocks_0.conv".
    known = {key.replace(".", "_", 1): value for key, value in found.state.items()} | found.state
    assert held
    for key, value in held.items():
        assert torch.equal(value, known[key.removeprefix(prefix)]), key
