"""What a backbone and its flows cost: counted on the meta device, where nothing is computed or read."""

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
    """Of one picture.

    Attributes:
        channels: of each scale.
        strides: of each scale, in pixels.
        backbone_parameters: of the part that is computed.
        flow_parameters: of all scales' flows.
        backbone_macs: multiply-adds of convolutions and matrix products.
        flow_macs: the same.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    backbone_parameters: int
    flow_parameters: int
    backbone_macs: int
    flow_macs: int

    @property
    def flow_bytes(self) -> int:
        """Of the flows' parameters in float32; in a bundle the Gaussians come on top."""
        return 4 * self.flow_parameters


def build_on_meta(name: str, out_indices: Sequence[int], input_size: tuple[int, int]) -> FeatureExtractor:
    """A feature extractor that has shapes and no numbers.

    Raises:
        WeightsError: as `FeatureExtractor`.
    """
    with torch.device("meta"):
        state: dict[str, Tensor] = dict(timm.create_model(name, pretrained=False).state_dict())
        return FeatureExtractor(Weights(name, "nowhere", "0" * 64, state), out_indices, input_size)


def count_cost(name: str, out_indices: Sequence[int], input_size: tuple[int, int], flow: FlowConfig) -> Cost:
    """Count what a model with this backbone computes for a picture.

    Args:
        name: timm's name of the backbone.
        out_indices: stages or blocks.
        input_size: (height, width).
        flow: shape of the flows.

    Raises:
        WeightsError: as `FeatureExtractor`.
    """
    extractor = build_on_meta(name, out_indices, input_size)
    with torch.device("meta"), torch.no_grad():
        flows = FastFlow(extractor.channels, flow)
        with FlopCounterMode(display=False) as backbone_count:
            maps = extractor(torch.empty(1, *input_size, 3, dtype=torch.uint8))
        # Made anew: what comes from inference mode cannot be differentiated, and need not be.
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
