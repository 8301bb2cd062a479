"""Cost of a backbone and its flows, counted on the meta device without any computation."""

from collections.abc import Sequence
from dataclasses import dataclass

import timm
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.weights import Weights
from flows.fastflow.config import FlowConfig
from flows.fastflow.model.fastflow import FastFlow


@dataclass(frozen=True)
class Cost:
    """Parameters and operations of a model for one image.

    Attributes:
        channels: channels of each scale.
        strides: stride of each scale, in pixels.
        backbone_parameters: parameters of the computed part of the backbone.
        flow_parameters: parameters of all scales' flows.
        backbone_macs: multiply-adds of the backbone's convolutions and matrix products.
        flow_macs: multiply-adds of the flows.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    backbone_parameters: int
    flow_parameters: int
    backbone_macs: int
    flow_macs: int

    @property
    def flow_bytes(self) -> int:
        """Bytes of the flows' parameters in float32; a bundle also holds the Gaussians."""
        return 4 * self.flow_parameters


def build_on_meta(name: str, out_indices: Sequence[int], input_size: tuple[int, int]) -> FeatureExtractor:
    """Build a feature extractor on the meta device, with shapes but without numbers.

    Raises:
        WeightsError: see `FeatureExtractor`.
    """
    with torch.device("meta"):
        state: dict[str, Tensor] = dict(timm.create_model(name, pretrained=False).state_dict())
        return FeatureExtractor(Weights(name, "nowhere", "0" * 64, state), out_indices, input_size)


def count_cost(name: str, out_indices: Sequence[int], input_size: tuple[int, int], flow: FlowConfig) -> Cost:
    """Count the parameters and operations of a model for an image.

    Args:
        name: timm's name of the backbone.
        out_indices: stages or blocks.
        input_size: (height, width).
        flow: architecture of the flows.

    Raises:
        WeightsError: see `FeatureExtractor`.
    """
    extractor = build_on_meta(name, out_indices, input_size)
    with torch.device("meta"), torch.no_grad():
        flows = FastFlow(extractor.channels, flow)
        with FlopCounterMode(display=False) as backbone_count:
            maps = extractor(torch.empty(1, *input_size, 3, dtype=torch.uint8))
        # Recreated, because tensors of inference mode cannot be inputs of differentiable modules.
        maps = [torch.empty(m.shape) for m in maps]
        with FlopCounterMode(display=False) as flow_count:
            flows(maps)
    return Cost(
        channels=extractor.channels,
        strides=extractor.strides,
        backbone_parameters=sum(p.numel() for p in extractor.backbone.parameters()),
        flow_parameters=sum(p.numel() for p in flows.parameters()),
        backbone_macs=backbone_count.get_total_flops() // 2,
        flow_macs=flow_count.get_total_flops() // 2,
    )
