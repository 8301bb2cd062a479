"""Head of a category: normalisation, flows and Gaussians on top of the shared backbone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from flows.fastflow.config import FlowConfig
from flows.fastflow.manifest import Normalisation, Precision
from flows.fastflow.model.cells import CellGaussian
from flows.fastflow.model.fastflow import FastFlow
from flows.fastflow.model.gaussian import ImageGaussian, PositionGaussian
from flows.fastflow.model.learned import LearnedPart
from flows.fastflow.model.normaliser import FeatureNormaliser


class Head(nn.Module):
    """Category's part of a model, on top of the shared backbone.

    Args:
        channels: channels of each scale, finest first.
        flow: architecture of the flows.
        sizes: (H_i, W_i) of each scale, if the Gaussian has a mean per position, see `PositionGaussian`.
        cells: cells along each side for a covariance per cell, see `CellGaussian`; needs the sizes.
        learned: include a part learned from reviewed defects.
        seed: seed of the flows' permutations.
    """

    def __init__(
        self,
        channels: Sequence[int],
        normalisation: Normalisation,
        flow: FlowConfig,
        sizes: Sequence[tuple[int, int]] | None = None,
        cells: int | None = None,
        learned: bool = False,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.normaliser = FeatureNormaliser(
            channels, normalisation.mode, normalisation.pooling, normalisation.pooled
        )
        self.flow = FastFlow(channels, flow, seed=seed)
        self.gaussian = PositionGaussian(channels, sizes)
        self.picture = ImageGaussian(channels)  # bundles store its tensors under this name
        first = self.picture.first
        self.cells = CellGaussian(channels[first], sizes[first], cells) if cells and sizes else None
        self.learned = LearnedPart(channels) if learned else None

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map raw feature maps to normalised ones and to latents, both of the same shapes."""
        features = self.normaliser(maps)
        latents, _ = self.flow(features)
        return features, latents

    @torch.no_grad()
    def fit_statistics(self, batches: Callable[[], Iterable[Sequence[Tensor]]]) -> None:
        """Fit everything except the flows: statistics that are computed, not learned.

        Args:
            batches: returns the raw feature maps of the training set, one (N, C_i, H_i, W_i) per scale and
                batch, from the start at each call.

        Raises:
            ValueError: there are no batches, or a feature is not finite.
        """
        self.normaliser.fit(batches())
        descriptions: list[list[Tensor]] = []

        def features() -> Iterator[list[Tensor]]:
            # Both Gaussians in one pass: reading and normalising takes most of the time.
            for maps in batches():
                normalised = self.normaliser(maps)
                descriptions.append(self.picture.describe(normalised))
                yield normalised

        self.gaussian.fit(features())
        self.picture.fit_descriptions(descriptions)
        if self.cells is not None:
            first = self.picture.first
            mean = self.gaussian.get_buffer(f"mean_{first}")
            self.cells.fit(mean, (self.normaliser(maps)[first] for maps in batches()))


def channels_last(head: Head) -> Head:
    """Convert the head's convolution weights to channels-last, the layout that CPUs and GPUs use."""
    convert_conv2d_weight_memory_format(head, torch.channels_last)
    return head


# In bfloat16, layers with maps larger than the image's size divided by this stay in float32: rounding loses
# low contrast, mostly in the first layers (docs/research/precision.md).
_EXACT_STRIDE: Final = 4


def keeps_float32(sides: Sequence[int], size: tuple[int, int]) -> bool:
    """Check that a map of these sides, of an image (height, width), stays in float32."""
    # Strides round up: a quarter of 30 is 8.
    return any(side > -(-whole // _EXACT_STRIDE) for side, whole in zip(sides, size, strict=True))


def autocast_for(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context for a precision: float32, or convolutions and products in bfloat16."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
