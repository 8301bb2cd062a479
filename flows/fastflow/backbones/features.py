"""Feature maps of images from a frozen timm backbone, convolutional or a plain vision transformer."""

import math
from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from timm.layers.helpers import to_2tuple
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models import FeatureInfo
from torch import Tensor, nn

from flows.fastflow.backbones.memory import count_module_bytes
from flows.fastflow.backbones.uninitialised import Uninitialised
from flows.fastflow.backbones.weights import Weights, WeightsError

# Attention takes time quadratic in their number, and with mixed heads (CaiT) memory too.
MAX_PATCHES = 4096


class FeatureExtractor(nn.Module):
    """Frozen timm backbone that returns the feature maps of chosen stages or blocks.

    One instance serves every category with the same weights and stages and, for a model of one input size,
    the same size. Layers after the last requested stage or block are not computed. The patch tokens of a
    transformer become a map, before the final norm; class, distillation and register tokens are dropped.

    Args:
        weights: the backbone's weights.
        out_indices: timm's indices, rising: of stages, e.g. (1, 2, 3) for strides 4, 8, 16, or of a
            transformer's blocks, from 0.
        input_size: (height, width) of the images, used only by models of one input size, such as
            transformers, whose position embedding is resampled. None is the size of their training.

    Attributes:
        input_size: the only input size, or None if any size is possible.

    Raises:
        WeightsError: the model has no such stages, lacks weights, or does not support the input size.
    """

    def __init__(
        self, weights: Weights, out_indices: Sequence[int], input_size: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        # timm returns each map once, in the order of the network.
        if not out_indices or out_indices[0] < 0 or list(out_indices) != sorted(set(out_indices)):
            raise WeightsError(f"out_indices must rise from 0 or more, such as (1, 2, 3); got {out_indices}")
        config = timm.get_pretrained_cfg(weights.name, allow_unregistered=False)
        if config is None:
            raise WeightsError(f"timm records no input mean and deviation for {weights.name}")
        native = (config.input_size[1], config.input_size[2])
        self.input_size: tuple[int, int] | None = None
        if config.fixed_input_size:
            self.input_size = native if input_size is None else (input_size[0], input_size[1])
        indices = tuple(out_indices)
        sized: dict[str, Any] = {} if self.input_size in (None, native) else {"img_size": self.input_size}
        try:
            with Uninitialised():  # `_fill` gives every tensor its value, or raises
                backbone = timm.create_model(
                    weights.name, pretrained=False, features_only=True, out_indices=indices, **sized
                )
        except (RuntimeError, AssertionError, IndexError, AttributeError, TypeError, ValueError) as error:
            for_size = f" for images of {self.input_size}" if sized else ""
            why = _describe_stages(weights.name) if isinstance(error, IndexError) else str(error)
            raise WeightsError(
                f"{weights.name} gives no feature maps at out_indices {indices}{for_size}: {why}"
            ) from error
        if self.input_size is not None:
            _require_whole_patches(backbone, weights.name, self.input_size)
        _fill(backbone, weights, native)
        self.name = weights.name
        self.weights_sha256 = weights.sha256
        self.out_indices = indices
        info = cast(FeatureInfo, backbone.feature_info)
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.backbone = backbone
        # True for Swin, whose blocks compute with channels at the end.
        self._channels_at_the_end = str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")
        self.mean: tuple[float, ...] = tuple(config.mean)
        self.std: tuple[float, ...] = tuple(config.std)
        self.register_buffer("offset", torch.tensor(self.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("gain", 1 / (torch.tensor(self.std).view(1, 3, 1, 1) * 255))
        self.offset: Tensor
        self.gain: Tensor
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in evaluation mode: batch statistics must never leak into frozen features."""
        del mode
        return super().train(False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute feature maps.

        Args:
            images: (N, H, W, 3) uint8 RGB, on the module's device.

        Returns:
            Per stage or block i, (N, C_i, H / stride_i, W / stride_i) float32 (sizes round up).

        Raises:
            ValueError: the images have another dtype or shape, or a size that the backbone does not support.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(
                f"FeatureExtractor expected uint8 images of shape (N, H, W, 3); "
                f"got {images.dtype} of shape {tuple(images.shape)}"
            )
        if not self.accepts_size((images.shape[1], images.shape[2])):
            raise ValueError(
                f"FeatureExtractor was built for images of {self.input_size} (height, width), the size of "
                f"the position embedding of {self.name}; got {tuple(images.shape[1:3])}"
            )
        return self.compute(images)

    def compute(self, images: Tensor) -> list[Tensor]:
        """Compute feature maps without checking the input, see `forward`."""
        # The permuted view is already channels-last, the fastest layout for convolutions.
        x = (images.permute(0, 3, 1, 2).to(self.offset.dtype) - self.offset) * self.gain
        maps: list[Tensor] = self.backbone(x)
        if self._channels_at_the_end:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return [m.float() for m in maps]  # another dtype only under autocast

    def accepts_size(self, size: tuple[int, int]) -> bool:
        """Check that the backbone supports images of a size, (height, width)."""
        return self.input_size is None or self.input_size == tuple(size)

    def layers(self) -> "FeatureExtractor":
        """Return itself, see `recorded.FrozenBackbone`."""
        return self

    @property
    def device(self) -> torch.device:
        return self.offset.device

    @property
    def nbytes(self) -> int:
        """Memory of the weights, in bytes."""
        return count_module_bytes(self)


def _describe_stages(name: str) -> str:
    """Describe the stages of a convolutional model."""
    with Uninitialised():
        model: Any = timm.create_model(name, pretrained=False, features_only=True)
    strides = cast(FeatureInfo, model.feature_info).reduction()
    return f"it has stages 0 to {len(strides) - 1}, of strides {', '.join(map(str, strides))}"


def _require_whole_patches(backbone: Any, name: str, size: tuple[int, int]) -> None:
    """Reject sizes that do not divide into the model's patches, or give too many patches."""
    patch = _patch_size(backbone)
    if patch is None:
        return
    if any(side % p for side, p in zip(size, patch, strict=True)):
        near = tuple(max(1, round(side / p)) * p for side, p in zip(size, patch, strict=True))
        raise WeightsError(
            f"{name} cuts images into patches of {patch[0]} x {patch[1]} pixels, so the sides of "
            f"input_size must be multiples of that; got {size}, use {near} for example"
        )
    patches = (size[0] // patch[0]) * (size[1] // patch[1])
    if patches > MAX_PATCHES:
        raise WeightsError(
            f"{name} would cut images of {size} into {patches} patches; the limit is {MAX_PATCHES}, because "
            "attention costs the square of their number: use a smaller input_size"
        )


def _patch_size(backbone: Any) -> tuple[int, int] | None:
    """Return (height, width) of a transformer's patches; None if the model has no grid of patches."""
    model = getattr(backbone, "model", None)
    size = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if size is None:
        return None
    height, width = to_2tuple(size)
    return int(height), int(width)


def _fill(backbone: Any, weights: Weights, native: tuple[int, int]) -> None:
    """Load a backbone's weights, with the position embedding resampled for another input size."""
    # timm wraps models that return intermediate outputs, such as transformers. It takes others apart into
    # their stages, and "stages.0.conv" becomes "stages_0.conv".
    model = getattr(backbone, "model", backbone)
    state = {key.replace(".", "_", 1): value for key, value in weights.state.items()} | weights.state
    embedding, patch = state.get("pos_embed"), _patch_size(backbone)
    if embedding is not None and embedding.ndim == 3 and patch is not None:
        old = [side // p for side, p in zip(native, patch, strict=True)]
        new = list(model.patch_embed.grid_size)
        # (1, tokens, D); class and other tokens, which have no position, come first.
        prefix = embedding.shape[1] - math.prod(old)
        if old != new:
            state["pos_embed"] = resample_abs_pos_embed(embedding, new, old, num_prefix_tokens=prefix)
    try:
        missing = model.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise WeightsError(
            f"the weights of {weights.name} are for images of {native} (height, width); timm cannot adapt "
            f"them to another input_size: {first}"
        ) from error
    if missing:
        raise WeightsError(f"the weights of {weights.name} lack {missing[:3]}")
