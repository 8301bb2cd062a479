"""A category's head over the shared backbone, and the path from pictures to scores and maps."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from flows.fastflow.features import FeatureExtractor, FeatureNormaliser
from flows.fastflow.images import resize
from flows.fastflow.manifest import Normalisation
from flows.fastflow.model import FastFlow, FlowConfig
from flows.fastflow.score import ScoreRule, anomaly_map, energies, image_score


class Head(nn.Module):
    """What a category adds to the shared backbone: normalisation and flows.

    Args:
        channels: channels of each scale.
        normalisation: how feature maps are normalised.
        flow: shape of the flows.
        seed: of the flows' permutations.
    """

    def __init__(
        self,
        channels: Sequence[int],
        normalisation: Normalisation,
        flow: FlowConfig,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.normaliser = FeatureNormaliser(channels, normalisation.mode, normalisation.pooling)
        self.flow = FastFlow(channels, flow, seed=seed)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map raw feature maps to latents of the same shapes."""
        latents, _ = self.flow(self.normaliser(maps))
        return list(latents)


def channels_last(head: Head) -> Head:
    """Lay the head's convolution weights out as channels-last, which is what CPUs and GPUs compute in."""
    convert_conv2d_weight_memory_format(head, torch.channels_last)
    return head


class Scorer:
    """Pictures to scores and maps: the part of a detector that needs no calibration.

    Args:
        extractor: the frozen backbone; may be shared.
        head: the category's head, on the same device.
        input_size: (height, width) that pictures are resized to.
        rule: how the image score is taken.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        head: Head,
        input_size: tuple[int, int],
        rule: ScoreRule,
    ) -> None:
        self.extractor = extractor
        self.head = channels_last(head.eval().requires_grad_(False))
        self.input_size = input_size
        self.rule = rule

    @torch.inference_mode()
    def score(self, images: Sequence[NDArray[np.uint8]]) -> tuple[list[float], NDArray[np.float32]]:
        """Score pictures.

        Args:
            images: (H, W, 3) uint8 RGB, of any sizes.

        Returns:
            One score per image, and the maps, (N, height, width) float32.
        """
        batch = np.stack([resize(image, self.input_size) for image in images])
        maps = self.extractor(torch.from_numpy(batch).to(self.extractor.offset.device))
        q = energies(self.head(maps), self.input_size)
        scores: list[float] = image_score(q, self.rule).tolist()
        return scores, anomaly_map(q).cpu().numpy()
