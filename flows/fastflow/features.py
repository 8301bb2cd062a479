"""From pictures to normalised feature maps: a frozen timm backbone, and statistics of the training set."""

from collections.abc import Iterable, Sequence
from typing import Literal, cast

import timm
import torch
import torch.nn.functional as F
from timm.models import FeatureInfo
from torch import Tensor, nn

from flows.fastflow.backbones import Weights, WeightsError


def module_bytes(module: nn.Module) -> int:
    """Memory of a module's parameters and buffers, in bytes."""
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))


class FeatureExtractor(nn.Module):
    """A frozen convolutional timm backbone that returns its feature maps at chosen stages.

    One instance serves every category that was trained on the same weights and stages.

    Args:
        weights: the backbone's weights.
        out_indices: timm's indices of the stages, rising, e.g. (1, 2, 3) for strides 4, 8, 16.

    Raises:
        WeightsError: the model has no such stages, or the weights do not fill it.
    """

    def __init__(self, weights: Weights, out_indices: Sequence[int]) -> None:
        super().__init__()
        # timm returns maps in the order of the network whatever order is asked for, and each one once.
        if not out_indices or out_indices[0] < 0 or list(out_indices) != sorted(set(out_indices)):
            raise WeightsError(f"out_indices must rise from 0 or more, such as (1, 2, 3); got {out_indices}")
        try:
            backbone = timm.create_model(
                weights.name, pretrained=False, features_only=True, out_indices=tuple(out_indices)
            )
        except (RuntimeError, AssertionError, IndexError, AttributeError, ValueError) as error:
            raise WeightsError(
                f"{weights.name} gives no feature maps at out_indices {tuple(out_indices)}: {error}"
            ) from error
        missing = backbone.load_state_dict(weights.state, strict=False).missing_keys
        if missing:
            raise WeightsError(f"the weights of {weights.name} lack {missing[:3]}")
        self.name = weights.name
        self.weights_sha256 = weights.sha256
        self.out_indices = tuple(out_indices)
        info = cast(FeatureInfo, backbone.feature_info)
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.backbone = backbone
        config = timm.get_pretrained_cfg(weights.name, allow_unregistered=False)
        if config is None:
            raise WeightsError(f"timm records no input mean and deviation for {weights.name}")
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
            Per stage i, (N, C_i, H / stride_i, W / stride_i) float32 (sizes round up).
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(
                f"FeatureExtractor expected uint8 images of shape (N, H, W, 3); "
                f"got {images.dtype} of shape {tuple(images.shape)}"
            )
        # The permuted view is channels-last already, which is what convolutions like best.
        x = (images.permute(0, 3, 1, 2).to(self.offset.dtype) - self.offset) * self.gain
        maps: list[Tensor] = self.backbone(x)
        return maps

    @property
    def nbytes(self) -> int:
        """Memory of the weights, in bytes."""
        return module_bytes(self)


class FeatureNormaliser(nn.Module):
    """Brings feature maps to a common scale without trained parameters.

    Trained normalisation would be a trap: the flow's loss does not count its Jacobian, so its gain would
    shrink to 0 and the loss fall without bound. `channel` subtracts the training set's mean per channel and
    divides by its deviation; `layer` is the published per-sample layer norm over (C, H, W).

    Args:
        channels: channels of each scale.
        mode: "channel" or "layer".
        pooling: side of an average-pooling window applied first (1 = none); gives each position its
            neighbourhood, as PatchCore does (Roth et al. 2022, arXiv 2106.08265, section 3.1).
    """

    def __init__(self, channels: Sequence[int], mode: Literal["channel", "layer"], pooling: int) -> None:
        super().__init__()
        if pooling % 2 == 0:
            raise ValueError(f"FeatureNormaliser expected an odd pooling window; got {pooling}")
        self.mode = mode
        self.pooling = pooling
        self.channels = tuple(channels)
        for i, c in enumerate(self.channels):
            self.register_buffer(f"mean_{i}", torch.zeros(c))
            self.register_buffer(f"std_{i}", torch.ones(c))

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Set the statistics of mode `channel` from batches of feature maps of the training set.

        Args:
            batches: per batch one (N, C_i, H_i, W_i) per scale; gone through once.

        Raises:
            ValueError: there are no batches, or a feature is not finite.
        """
        # In double precision: a sum over a million positions loses the small deviations in single.
        moments = [torch.zeros(3, c, dtype=torch.float64) for c in self.channels]
        for maps in batches:
            for total, raw in zip(moments, maps, strict=True):
                x = self._pool(raw).double()
                total[0] += x.numel() // x.shape[1]
                total[1] += x.sum((0, 2, 3)).cpu()
                total[2] += x.square().sum((0, 2, 3)).cpu()
        for i, (count, first, second) in enumerate(moments):
            mean = first / count
            std = (second / count - mean.square()).clamp_min(0).sqrt()
            if not (mean.isfinite().all() and std.isfinite().all()):
                raise ValueError(f"scale {i}: no statistics of {int(count[0])} positions, or not finite ones")
            self.get_buffer(f"mean_{i}").copy_(mean)
            # A dead channel has deviation 0: it then stays 0 instead of turning to NaN.
            self.get_buffer(f"std_{i}").copy_(torch.where(std > 1e-6, std, 1.0))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Normalise feature maps; shapes stay (N, C_i, H_i, W_i)."""
        found = tuple(x.shape[1] for x in maps)
        if found != self.channels:
            raise ValueError(f"expected feature maps of {self.channels} channels; got {found}")
        return [self._normalise(i, self._pool(x)) for i, x in enumerate(maps)]

    def _pool(self, x: Tensor) -> Tensor:
        if self.pooling == 1:
            return x
        # Padding is left out of the average, or the border of every good part would look odd.
        return F.avg_pool2d(x, self.pooling, stride=1, padding=self.pooling // 2, count_include_pad=False)

    def _normalise(self, i: int, x: Tensor) -> Tensor:
        if self.mode == "layer":
            return F.layer_norm(x, x.shape[1:])
        mean = self.get_buffer(f"mean_{i}").view(1, -1, 1, 1)
        std = self.get_buffer(f"std_{i}").view(1, -1, 1, 1)
        return (x - mean) / std
