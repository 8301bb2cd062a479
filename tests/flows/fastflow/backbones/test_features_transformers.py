"""Feature maps of plain vision transformers, against what a hook on the block sees in timm's whole model."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.weights import Weights, WeightsError
from tests.support import random_weights as backbones

# timm's name, tokens that belong to no patch, side of a patch: a class token; that and a distillation token;
# class attention, so none among the patches; a class token and four registers; those and rotary positions.
KINDS = [
    ("test_vit", 1, 16),
    ("deit_tiny_distilled_patch16_224", 2, 16),
    ("cait_xxs24_224", 0, 16),
    ("vit_small_patch14_reg4_dinov2", 5, 14),
    ("vit_small_patch16_dinov3", 5, 16),
]


def random_weights(name: str) -> Weights:
    return Weights(name, "a test", "0" * 64, backbones.random_weights(name))


def pictures(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (*shape, 3), generator=generator, dtype=torch.uint8)


def seen_by_hook(weights: Weights, size: tuple[int, int], block: int, images: Tensor, std: Any) -> Tensor:
    """The tokens (N, T, D) that leave a block of the whole classifier, loaded and resized by timm alone."""
    # CaiT's are resized by no code of timm's when it loads, so its test keeps the size.
    sized: dict[str, Any] = {} if "cait" in weights.name else {"img_size": size}
    model: Any = timm.create_model(
        weights.name, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(weights.state)}, **sized
    ).eval()
    caught: list[Tensor] = []
    model.blocks[block].register_forward_hook(lambda _m, _i, output: caught.append(output))
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in std)
    with torch.inference_mode():
        model((images.permute(0, 3, 1, 2) / 255 - mean) / deviation)
    return caught[0]


@pytest.mark.parametrize(("name", "others", "patch"), KINDS, ids=[kind[0] for kind in KINDS])
def test_maps_are_the_blocks_patch_tokens_in_their_places(name: str, others: int, patch: int) -> None:
    weights = random_weights(name)
    rows, columns = (14, 14) if "cait" in name else (4, 6)
    size = (rows * patch, columns * patch)
    extractor = FeatureExtractor(weights, (1, 2), size)
    images = pictures(2, *size)
    maps = extractor(images)
    assert extractor.strides == (patch, patch)
    tokens = seen_by_hook(weights, size, 2, images, (extractor.mean, extractor.std))
    assert tokens.shape[1] == others + rows * columns
    for row, column in ((0, 0), (0, columns - 1), (rows - 1, 0), (2, 3)):
        wanted = tokens[:, others + row * columns + column]
        torch.testing.assert_close(maps[1][:, :, row, column], wanted, rtol=1e-3, atol=1e-4)
    assert maps[0].shape == (2, extractor.channels[0], rows, columns)


def test_position_embedding_is_resampled_for_equal_patch_counts() -> None:
    """10 x 10 patches when trained, 5 x 20 here: as many numbers, in other places."""
    weights = random_weights("test_vit")
    native, flat = FeatureExtractor(weights, (0,)), FeatureExtractor(weights, (0,), (80, 320))
    positions = [extractor.backbone.get_parameter("model.pos_embed") for extractor in (native, flat)]
    assert positions[0].shape == positions[1].shape
    assert not torch.allclose(positions[0], positions[1])


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("vit_small_patch14_dinov2", (256, 256), r"patches of 14 x 14 .*got \(256, 256\), use \(252, 252\)"),
        ("test_vit", (64, 100), r"patches of 16 x 16 .*got \(64, 100\), use \(64, 96\)"),
        ("test_vit", (1040, 1024), r"into 4160 patches; the limit is 4096"),
        ("beit_base_patch16_224", (64, 64), r"are for images of \(224, 224\) .*cannot adapt them to another"),
    ],
)
def test_unsupported_size_is_rejected_before_computing(name: str, size: tuple[int, int], said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        backbones.build_on_meta(name, (1,), size)
