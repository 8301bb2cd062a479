"""A category's head over the shared backbone, and the path from pictures to scores and maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

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

# Per picture its region of interest, (height, width) bool at the input size, or None for everything.
Regions: TypeAlias = Sequence[NDArray[np.bool_] | None]


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

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Map raw feature maps to normalised ones and to latents, both of the same shapes."""
        features = self.normaliser(maps)
        latents, _ = self.flow(features)
        return features, latents


def channels_last(head: Head) -> Head:
    """Lay the head's convolution weights out as channels-last, which is what CPUs and GPUs compute in."""
    convert_conv2d_weight_memory_format(head, torch.channels_last)
    return head


@dataclass(frozen=True)
class Scored:
    """What a model finds in one picture.

    Attributes:
        score: image score, higher is more anomalous.
        score_map: (height, width) float32 anomaly map at the model's input size.
        statistics: per scale the mean and the standard deviation of the features over channels and positions,
            2 S numbers: a picture's brightness and contrast as the model sees them, to tell drift by. Of the
            normalised features; of the backbone's where layer norm would make every picture's the same.
    """

    score: float
    score_map: NDArray[np.float32]
    statistics: tuple[float, ...]


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

    def score(self, images: Sequence[NDArray[np.uint8]]) -> list[Scored]:
        """Score pictures, (H, W, 3) uint8 RGB of any sizes, as one batch."""
        return self.score_features(self.features([self.prepare(image) for image in images]))

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring a picture (H, W, 3) to the input size, uint8 (height, width, 3)."""
        return resize(image, self.input_size)

    def features(self, prepared: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Run the backbone over prepared pictures: per scale (N, C_i, H_i, W_i), on the model's device.

        They are the same for every head that shares the extractor and the input size.
        """
        return list(self.extractor(torch.from_numpy(np.stack(prepared)).to(self.extractor.offset.device)))

    @torch.inference_mode()
    def score_features(self, maps: Sequence[Tensor], regions: Regions | None = None) -> list[Scored]:
        """Score pictures by what the backbone made of them.

        Args:
            maps: per scale (N, C_i, H_i, W_i), from `features`.
            regions: of interest, one for each picture. A region can only lower a score, and the map outside
                it is 0.

        Raises:
            ValueError: there are not as many regions as pictures, or one has another shape or no pixel.
        """
        inside = self._stack(regions, len(maps[0]))
        features, latents = self.head(maps)
        q = energies(latents, self.input_size)
        scores = image_score(q, self.rule, inside).tolist()
        score_maps = anomaly_map(q, inside).cpu().numpy()
        moments = _moments(maps if self.head.normaliser.mode == "layer" else features)
        return [Scored(*of_one) for of_one in zip(scores, score_maps, moments, strict=True)]

    def _stack(self, regions: Regions | None, n: int) -> Tensor | None:
        """The regions as one mask (n, height, width), or None where all is of interest."""
        if regions is None:
            return None
        if len(regions) != n:
            raise ValueError(f"Scorer expected a region or None for each of {n} pictures; got {len(regions)}")
        for region in regions:
            if region is None:
                continue
            if region.shape != self.input_size or region.dtype != np.bool_:
                raise ValueError(
                    f"a region must be bool of the input size {self.input_size}; "
                    f"got {region.dtype} of shape {region.shape}"
                )
            if not region.any():
                raise ValueError("a region without a pixel would pass every part")
        if all(region is None for region in regions):
            return None
        everything = np.ones(self.input_size, np.bool_)
        masks = np.stack([everything if region is None else region for region in regions])
        return torch.from_numpy(masks).to(self.extractor.offset.device)


def _moments(maps: Sequence[Tensor]) -> list[tuple[float, ...]]:
    """Per picture the mean and the deviation of each scale's map, one scale after the other."""
    moments = []
    for x in maps:
        # Several times faster than torch.std_mean on channels-last maps.
        mean, square = x.mean((1, 2, 3)), x.square().mean((1, 2, 3))
        moments += [mean, (square - mean.square()).clamp_min(0).sqrt()]
    return [tuple(of_one) for of_one in torch.stack(moments, 1).tolist()]
