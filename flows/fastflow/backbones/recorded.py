"""The backbone that a bundle was trained on, known by its record until its layers are needed."""

from collections.abc import Callable, Sequence
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
    """A frozen backbone, as engines and scorers know it.

    Attributes:
        name: timm's.
        weights_sha256: `weights.digest` of its weights.
        out_indices: of the stages or blocks whose maps it gives, see `features.FeatureExtractor`.
        channels: of each map.
        strides: of each map, in pixels.
        mean: of the pixels that it was trained with, of 1.
        std: their standard deviation.
        device: where its maps are computed.
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
        """Whether it can be given pictures of a size, (height, width)."""

    def layers(self) -> "FeatureExtractor":
        """What computes the maps."""


class RecordedBackbone:
    """A backbone for pictures of one size, built by timm when something asks for its layers.

    timm takes two seconds to import. An engine that has kept the backbone compiled never asks. Use from one
    thread at a time.

    Args:
        record: of a bundle's manifest.
        input_size: (height, width) of the pictures.
        folder: the models folder's `backbones/`.
        device: where its maps are computed.

    Raises:
        WeightsError: the weights are missing or others.
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
        # Who computes with the layers keeps them; who compiled them can do without.
        self._layers: Callable[[], FeatureExtractor | None] = lambda: None
        self._weights: Weights | None
        self._weights = load_kept_weights(self.name, folder, self.weights_sha256) or self._find()

    def accepts_size(self, size: tuple[int, int]) -> bool:
        """See `FrozenBackbone`."""
        return size == self._input_size

    def layers(self) -> "FeatureExtractor":
        """See `FrozenBackbone`.

        Raises:
            WeightsError: the weights have gone, or fit no model of timm's.
            BundleError: timm builds something else than was recorded.
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
        """Keep no weights in memory for layers that nobody has asked for; they are read again if need be."""
        self._weights = None

    def _find(self) -> Weights:
        from flows.fastflow.backbones.sources import find_weights

        return find_weights(self.name, folder=self._folder, sha256=self.weights_sha256, hub=False)


def record_backbone(backbone: FrozenBackbone) -> manifest.Backbone:
    """What a bundle's manifest says of a backbone."""
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
    """What a backbone has otherwise than was recorded of one with the same weights and stages, in words."""
    pairs: tuple[tuple[str, Sequence[float], Sequence[float]], ...] = (
        ("channels", backbone.channels, record.channels),
        ("strides", backbone.strides, record.strides),
        ("mean", backbone.mean, record.mean),
        ("std", backbone.std, record.std),
    )
    for what, here, there in pairs:
        if list(here) != list(there):
            return (
                f"{what} of {record.name} were {there} in training and are {list(here)} here; "
                "is this another version of timm?"
            )
    return None


def matches_manifest(backbone: FrozenBackbone, bundle: manifest.Manifest) -> bool:
    """Whether a backbone is the one that a bundle was trained on."""
    return (
        backbone.name == bundle.backbone.name
        and backbone.weights_sha256 == bundle.backbone.weights_sha256
        and list(backbone.out_indices) == bundle.backbone.out_indices
        and backbone.accepts_size(bundle.input_size)
    )
