"""The frozen backbone's feature maps."""

from collections.abc import Sequence

import pytest
import timm
import torch

from flows.fastflow.backbones import sources as backbones
from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.weights import Weights, WeightsError
from tests.flows.fastflow.untrained import state, weights

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DESCRIBED = [
    ("tf_efficientnet_lite0", (1, 2, 3, 4), (24, 40, 112, 320), (4, 8, 16, 32), HALF),
    ("resnet18", (1, 2, 3), (64, 128, 256), (4, 8, 16), IMAGENET),
    ("wide_resnet50_2", (1, 2, 3), (256, 512, 1024), (4, 8, 16), IMAGENET),
]


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(backbones.find_weights("tf_efficientnet_lite0"), (1, 2, 3, 4))


@pytest.mark.parametrize(("name", "indices", "channels", "strides", "constants"), DESCRIBED)
def test_backbone_describes_itself(
    name: str,
    indices: Sequence[int],
    channels: Sequence[int],
    strides: Sequence[int],
    constants: tuple[Sequence[float], Sequence[float]],
) -> None:
    tensors = dict(timm.create_model(name, pretrained=False).state_dict())
    found = FeatureExtractor(Weights(name, "a test", "0" * 64, tensors), indices)
    assert found.channels == channels
    assert found.strides == strides
    assert (found.mean, found.std) == constants
    maps = found(images(1, 64, 64))
    assert [m.shape[1] for m in maps] == list(channels)
    assert [64 // m.shape[2] for m in maps] == list(strides)


def test_pixels_are_normalised_with_mean_and_deviation(extractor: FeatureExtractor) -> None:
    """Against timm's model fed with the textbook formula."""
    batch = images(2, 64, 96)
    x = batch.permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(v).double().view(1, 3, 1, 1) for v in (extractor.mean, extractor.std))
    with torch.inference_mode():
        expected = extractor.backbone(((x - mean) / std).float().contiguous())
    for found, wanted in zip(extractor(batch), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_it_is_frozen_and_stays_in_evaluation(extractor: FeatureExtractor) -> None:
    before = {key: value.clone() for key, value in extractor.state_dict().items()}
    assert extractor.train() is extractor
    extractor.train(True)
    assert not any(module.training for module in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    first = extractor(images(4, 64, 64))
    assert not any(m.requires_grad for m in first)
    # A batch with other statistics would move those of a normalisation in training mode.
    extractor(images(4, 64, 64, seed=1) // 4)
    after = extractor.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(torch.equal(a, b) for a, b in zip(first, extractor(images(4, 64, 64)), strict=True))


@pytest.mark.parametrize("indices", [(), (3, 2), (2, 2), (-1,), (-2, 1)])
def test_indices_must_rise(indices: tuple[int, ...]) -> None:
    """timm would give (3, 2) in the other order, and describe it in this one."""
    with pytest.raises(WeightsError, match="out_indices must rise"):
        FeatureExtractor(weights(), indices)


def test_weights_that_do_not_fill_the_stages_are_an_error() -> None:
    tensors = state()
    del tensors["layer1.0.conv1.weight"]
    with pytest.raises(WeightsError, match=r"the weights of test_resnet lack \['layer1.0.conv1.weight'\]"):
        FeatureExtractor(Weights("test_resnet", "a test", "0" * 64, tensors), (1,))
