"""The frozen backbone of a run, loaded once for successive runs."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.sources import find_weights
from flows.fastflow.backbones.weights import Weights
from training.config.run_config import BackboneConfig, ConfigError


class BackboneLoader:
    """Finds and builds backbones and keeps the latest, which successive categories mostly share.

    Args:
        folder: the models folder's `backbones/`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._weights: tuple[BackboneConfig, Weights] | None = None
        self._extractor: tuple[BackboneConfig, tuple[int, int], torch.device, FeatureExtractor] | None = None

    def weights(self, config: BackboneConfig) -> Weights:
        """Find the weights of a run.

        Raises:
            WeightsError: they are missing, damaged or of another backbone.
        """
        if self._weights is None or self._weights[0] != config:
            self._weights = config, find_weights(config.name, file=config.weights, folder=self.folder)
        return self._weights[1]

    def extractor(
        self, config: BackboneConfig, input_size: tuple[int, int], device: torch.device
    ) -> FeatureExtractor:
        """Build the backbone on a device, for inputs of (height, width).

        Raises:
            WeightsError: as `weights`, or it has no such stages.
        """
        if self._extractor is None or self._extractor[:3] != (config, input_size, device):
            self._extractor = None  # two at a time might not fit
            built = FeatureExtractor(self.weights(config), config.out_indices, input_size).to(device)
            self._extractor = config, input_size, device, built
        return self._extractor[3]


def require_whole_positions(input_size: tuple[int, int], strides: Sequence[int], backbone: str) -> None:
    """Require an input size that the backbone's strides divide.

    Otherwise the last positions lie beyond the edge. Maps are interpolated as if positions covered the image
    evenly, and would be shifted.

    Raises:
        ConfigError: with the nearest sizes that fit.
    """
    step = math.lcm(*strides)
    near = {
        side: [n for n in (side // step * step, side // step * step + step) if 32 <= n <= 4096]
        for side in input_size
        if side % step
    }
    if near:
        instead = "; ".join(f"instead of {side} use {' or '.join(map(str, n))}" for side, n in near.items())
        raise ConfigError(
            f"an input of {input_size[0]} x {input_size[1]}: sides must be multiples of {step}, the coarsest "
            f"stride of {backbone}; set input_size: {instead}"
        )
