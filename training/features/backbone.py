"""The frozen backbone of a run, loaded once for runs that follow each other."""

from pathlib import Path

import torch

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.sources import find_weights
from flows.fastflow.backbones.weights import Weights
from training.config.run_config import BackboneConfig


class BackboneLoader:
    """Finds and builds backbones, and keeps the latest: categories in turn mostly share it.

    Args:
        folder: the models folder's `backbones/`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._weights: tuple[BackboneConfig, Weights] | None = None
        self._extractor: tuple[BackboneConfig, tuple[int, int], torch.device, FeatureExtractor] | None = None

    def weights(self, config: BackboneConfig) -> Weights:
        """The weights that a run asks for.

        Raises:
            WeightsError: they are missing, damaged or of another backbone.
        """
        if self._weights is None or self._weights[0] != config:
            self._weights = config, find_weights(config.name, file=config.weights, folder=self.folder)
        return self._weights[1]

    def extractor(
        self, config: BackboneConfig, input_size: tuple[int, int], device: torch.device
    ) -> FeatureExtractor:
        """The backbone with those weights on a device, for images of (height, width).

        Raises:
            WeightsError: also where it has no such stages.
        """
        if self._extractor is None or self._extractor[:3] != (config, input_size, device):
            self._extractor = None  # two at a time might not fit
            built = FeatureExtractor(self.weights(config), config.out_indices, input_size).to(device)
            self._extractor = config, input_size, device, built
        return self._extractor[3]
