"""The record of a fitted flow: its recipe, data, fit and result."""

import hashlib
from dataclasses import asdict
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from training.density.fit import FitSettings
from training.density.image_data import ImageSplits

MAX_SIDE = 1024  # pixels
# Bounds of a recipe. A flow within them may still exceed the memory: `load` compares it with its weights
# before building it.
_Channels = Annotated[int, Field(ge=1, le=3)]
_Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
_Count = Annotated[int, Field(ge=1, le=65536)]
_Argument = _Count | Annotated[float, Field(ge=0, le=1e6)] | Annotated[list[_Count], Field(max_length=64)]


class DataSource(BaseModel):
    """The data of a fit: source, sizes of the splits, and a sha256 of all pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    train: int
    validation: int
    test: int
    fingerprint: str

    @classmethod
    def from_images(cls, images: ImageSplits, source: str) -> "DataSource":
        """Record images that came from a source."""
        sha256 = hashlib.sha256(f"{images.levels} {images.shape}".encode())
        for part in (images.train, images.validation, images.test):
            sha256.update(part.to(torch.uint8).numpy().tobytes())
        return cls(
            source=source,
            train=len(images.train),
            validation=len(images.validation),
            test=len(images.test),
            fingerprint=sha256.hexdigest(),
        )


class FitRecord(BaseModel):
    """The settings and the duration of a fit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    device: str
    seconds: float

    @classmethod
    def from_settings(cls, settings: FitSettings, device: str, seconds: float) -> "FitRecord":
        """Record a fit that took so many seconds."""
        values = {name: value for name, value in asdict(settings).items() if name in cls.model_fields}
        return cls(**values, device=device, seconds=round(seconds, 3))


class FlowRecord(BaseModel):
    """The content of recipe.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    recipe: str
    arguments: dict[str, _Argument]
    event_shape: tuple[_Channels, _Side, _Side]
    levels: Annotated[int, Field(ge=2, le=256)]
    data: DataSource
    settings: FitRecord
    validation_bits_per_dim: float
    weights_sha256: str = ""
    created: str = ""
    libraries: dict[str, str] = {}
