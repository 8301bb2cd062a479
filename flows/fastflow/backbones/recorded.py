"""Backbone of a bundle, known by its record and built when its layers are needed."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from weakref import ref

import torch

from flows.fastflow import manifest
from flows.fastflow.backbones.weights import Weights, load_kept_weights
from flows.fastflow.bundle.bundle import BundleError

if TYPE_CHECKING:
    from flows.fastflow.backbones.features import FeatureExtractor


class FrozenBackbone(Protocol):
    """Interface of a frozen backbone for engines and scorers.

    Attributes:
        name: timm's name.
        weights_sha256: `weights.weights_digest` of its weights.
        out_indices: indices of the stages or blocks with maps, see `features.FeatureExtractor`.
        channels: channels of each map.
        strides: stride of each map, in pixels.
        mean: mean of the pixels in its training, in [0, 1].
        std: their standard deviation.
        device: device that the maps are computed on.
    """

    name: str
    weights_sha256: str
    out_indices: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def device(self) -> torch.device: ...

    def accepts_size(self, size: tuple[int, int]) -> bool:
        """Check that the backbone supports images of a size, (height, width)."""

    def layers(self) -> "FeatureExtractor":
        """Return the module that computes the maps."""


class RecordedBackbone:
    """Backbone for images of one size that timm builds when its layers are first needed.

    The import of timm takes two seconds. An engine with a cached compiled backbone does not need the layers.
    Use from one thread at a time.

    Args:
        record: the backbone's entry in a bundle's manifest.
        input_size: (height, width) of the images.
        folder: the models folder's `backbones/`.
        device: device that the maps are computed on.

    Raises:
        WeightsError: the weights are missing or differ from the record.
    """

    def __init__(
        self, record: manifest.Backbone, input_size: tuple[int, int], folder: Path, device: torch.device
    ) -> None:
        self.name = record.name
        self.weights_sha256 = record.weights_sha256
        self.out_indices = tuple(record.out_indices)
        self.channels = tuple(record.channels)
        self.strides = tuple(record.strides)
        self.mean = tuple(record.mean)
        self.std = tuple(record.std)
        self.device = device
        self._record = record
        self._input_size = input_size
        self._folder = folder
        # A weak reference: an engine that computes with the layers keeps them; a compiled one does not.
        self._layers: Callable[[], FeatureExtractor | None] = lambda: None
        self._weights: Weights | None
        self._weights = load_kept_weights(self.name, folder, self.weights_sha256) or self._find()

    def accepts_size(self, size: tuple[int, int]) -> bool:
        """See `FrozenBackbone`."""
        return size == self._input_size

    def layers(self) -> "FeatureExtractor":
        """See `FrozenBackbone`.

        Raises:
            WeightsError: the weights were deleted, or do not fit timm's model.
            BundleError: timm builds another model than the recorded one.
        """
        from flows.fastflow.backbones.features import FeatureExtractor

        if (layers := self._layers()) is not None:
            return layers
        weights = self._weights or self._find()
        self.free_weights()
        layers = FeatureExtractor(weights, self.out_indices, self._input_size).to(self.device)
        if (other := describe_difference(layers, self._record)) is not None:
            raise BundleError(other)
        self._layers = ref(layers)
        return layers

    def free_weights(self) -> None:
        """Free the weights of layers that were not built; they are read again if necessary."""
        self._weights = None

    def _find(self) -> Weights:
        from flows.fastflow.backbones.sources import find_weights

        return find_weights(self.name, folder=self._folder, sha256=self.weights_sha256, hub=False)


def record_backbone(backbone: FrozenBackbone) -> manifest.Backbone:
    return manifest.Backbone(
        name=backbone.name,
        weights_sha256=backbone.weights_sha256,
        out_indices=list(backbone.out_indices),
        channels=list(backbone.channels),
        strides=list(backbone.strides),
        mean=list(backbone.mean),
        std=list(backbone.std),
    )


def describe_difference(backbone: FrozenBackbone, record: manifest.Backbone) -> str | None:
    """Describe the first difference between a backbone and its record; None if there is none."""
    for name in ("channels", "strides", "mean", "std"):
        actual, recorded = list(getattr(backbone, name)), getattr(record, name)
        if actual != recorded:
            return (
                f"{name} of {record.name} were {recorded} in training and are {actual} now; "
                "is this another version of timm?"
            )
    return None


def matches_manifest(backbone: FrozenBackbone, bundle: manifest.Manifest) -> bool:
    return (
        backbone.name == bundle.backbone.name
        and backbone.weights_sha256 == bundle.backbone.weights_sha256
        and list(backbone.out_indices) == bundle.backbone.out_indices
        and backbone.accepts_size(bundle.input_size)
    )
