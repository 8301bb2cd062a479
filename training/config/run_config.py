"""The configuration of a training run, complete in one YAML file."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from flows.fastflow.backbones.presets import DEFAULT_BACKBONE
from flows.fastflow.calibration.conformal import HELD_OUT
from flows.fastflow.config import MAX_SAMPLE_BITS, FlowConfig
from flows.fastflow.manifest import MAX_INPUT_PIXELS, MAX_MAPS, Normalisation, Precision, SampleBits
from training.config.augmentation import AugmentConfig
from training.config.geometry_config import DEFAULT_INPUT, USUAL_BATCH, GeometryConfig
from training.config.score_config import ScoreConfig


class ConfigError(ValueError):
    """The YAML file does not describe a run."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BackboneConfig(_Section):
    """The frozen backbone."""

    name: str = Field(default=DEFAULT_BACKBONE, description="timm's name of the model")
    out_indices: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(2, 3, 4),
        min_length=1,
        max_length=MAX_MAPS,
        description="timm's indices of the stages or of a transformer's blocks, ascending",
    )
    weights: Path | None = Field(
        default=None, description="a .safetensors or .pth file; by default looked up on this machine"
    )
    batch_size: int = Field(default=8, ge=1, description="images per pass of the backbone")


class GaussianConfig(_Section):
    """The Gaussian of positions beside the flows."""

    means: Literal["position", "channel"] = Field(
        default="position",
        description="mean of the Gaussian per position, which sharpens maps of parts in a fixed place, or "
        "one mean for all positions",
    )

    def sizes(self, maps: Sequence[NDArray[np.float32]]) -> list[tuple[int, int]] | None:
        """Return (H_i, W_i) of feature maps (N, C_i, H_i, W_i), for `PositionGaussian`."""
        return [(x.shape[2], x.shape[3]) for x in maps] if self.means == "position" else None


class StoppingConfig(_Section):
    """When to stop before the last epoch, and at which epoch's weights.

    Judged by good images that neither fit the flows nor calibrate the threshold: a calibration image
    that had chosen an epoch would no longer be like one that comes along the line.
    """

    patience: int = Field(
        default=5, ge=1, description="epochs without a better likelihood before the fit stops"
    )
    fraction: float = Field(
        default=0.1, gt=0, lt=1, description="share of the images to fit that judge the epochs instead"
    )


class FitConfig(_Section):
    """Settings of the fit of the flows."""

    steps: int = Field(default=800, ge=1, description="updates; ignored if `epochs` is set")
    epochs: int | None = Field(
        default=None, ge=1, description="passes over the images; null for the fewest that give `steps`"
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="images per update; null for 8, and fewer of an input larger than 256 x 256, for as many "
        "positions",
    )
    tiles: int = Field(
        default=16, ge=1, description="most tiles of an image to fit; only with geometry.fit `tile`"
    )
    schedule: Literal["one-cycle", "constant"] = Field(
        default="one-cycle", description="learning rate that rises and falls, or stays constant"
    )
    learning_rate: float = Field(
        default=4e-3,
        gt=0,
        description="learning rate, at the peak of one-cycle; 3x3 kernels were measured with 0.002",
    )
    weight_decay: float = Field(default=1e-5, ge=0, description="weight decay of the optimiser")
    gradient_clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    noise: float = Field(
        default=0.03,
        ge=0,
        le=1,
        description="standard deviation of noise on the normalised features; makes the flows robust to the "
        "rounding of bfloat16 engines",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of the flows' convolutions in training; auto is bfloat16 if the processor supports it",
    )
    stopping: StoppingConfig | None = Field(
        default=None, description="early stopping by further held-out images; null for none"
    )
    threads: int = Field(default=2, ge=1, description="CPU threads; results depend on it in the last digits")

    def epochs_for(self, images: int) -> int:
        return self.epochs or math.ceil(self.steps / self.batches_of(images))

    def batches_of(self, images: int) -> int:
        """Count the updates in an epoch of `images` images."""
        return math.ceil(images / self.images_per_update)

    @property
    def images_per_update(self) -> int:
        """The batch size, which is resolved before the fit."""
        return self.batch_size or USUAL_BATCH


class CalibrationConfig(_Section):
    """The good images kept out of the fit, and the promise made with them."""

    fraction: float = Field(
        default=HELD_OUT, gt=0, lt=1, description="share of the good images (or parts) to hold out"
    )
    # Above a half the pixel threshold, the middle of the colour scale, may lie below typical good parts.
    target_fpr: float = Field(
        default=0.01, gt=0, le=0.5, description="share of good parts that may be rejected"
    )
    review_fpr: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of good parts that may be rejected or reviewed; null for no review band",
    )
    engines: tuple[Precision, ...] = Field(
        default=("float32",), min_length=1, description="precisions to calibrate for; must include float32"
    )

    @model_validator(mode="after")
    def _check(self) -> "CalibrationConfig":
        if self.review_fpr is not None and self.review_fpr <= self.target_fpr:
            raise ValueError(
                "review_fpr counts rejected parts too, so it must be more than target_fpr, "
                f"{self.target_fpr:g}; got {self.review_fpr:g}"
            )
        if len(set(self.engines)) != len(self.engines) or "float32" not in self.engines:
            raise ValueError(
                f"engines must name float32, by which others are checked, and each once; got {self.engines}"
            )
        return self


class FeatureCacheConfig(_Section):
    """Settings of the feature cache, which affect no result."""

    max_gib: float = Field(
        default=20, gt=0, description="disk space for cached features; the least recently used are removed"
    )


_NORMALISATION = Normalisation(mode="channel", pooling=3)


class RunConfig(_Section):
    """A complete training run. Every field has a default that works for a first run."""

    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="seed of the split, the weights, the order of images and augmentation",
    )
    device: str = Field(default="auto", description="device: auto, cpu, cuda or cuda:N")
    input_size: tuple[int, int] | None = Field(
        default=None,
        description="height and width, multiples of the coarsest stride (32 by default); null for 256 x 256, "
        "or what `geometry.fit: auto` chooses",
    )
    sample_bits: SampleBits = Field(
        default=MAX_SAMPLE_BITS,
        description="bits of a 16-bit sample that the camera uses, e.g. 12; other images are not affected",
    )
    geometry: GeometryConfig = GeometryConfig()
    backbone: BackboneConfig = BackboneConfig()
    normalisation: Normalisation = _NORMALISATION
    gaussian: GaussianConfig = GaussianConfig()
    flow: FlowConfig = FlowConfig()
    score: ScoreConfig = ScoreConfig()
    fit: FitConfig = FitConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    augment: AugmentConfig = AugmentConfig()
    feature_cache: FeatureCacheConfig = FeatureCacheConfig()
    tensorboard: Path | None = Field(
        default=None, description="folder of logs for TensorBoard; null for none"
    )

    @property
    def starter(self) -> bool:
        """True for a starter: without flows, and with images that both fit and calibrate it."""
        return self.flow.steps == 0

    def as_starter(self) -> "RunConfig":
        """Return the settings of a starter, on one thread: for its small matrices, more take longer."""
        flow, fit = self.flow.model_copy(update={"steps": 0}), self.fit.model_copy(update={"threads": 1})
        return self.model_copy(update={"flow": flow, "fit": fit})

    @field_validator("normalisation", mode="before")
    @classmethod
    def _fill_in(cls, section: object) -> object:
        """Fill in defaults, which the bundle's record of the section does not have."""
        return {**_NORMALISATION.model_dump(), **section} if isinstance(section, dict) else section

    @model_validator(mode="after")
    def _check(self) -> "RunConfig":
        indices = self.backbone.out_indices
        # timm returns the maps in ascending order, each once, whatever the requested order.
        if indices != tuple(sorted(set(indices))):
            raise ValueError(f"backbone.out_indices must rise; got {indices}")
        size = self.input_size or DEFAULT_INPUT
        if any(not 32 <= side <= 4096 for side in size):
            raise ValueError(f"input_size must lie between 32 and 4096; got {size}")
        if math.prod(size) > MAX_INPUT_PIXELS:
            raise ValueError(
                f"input_size may have at most {MAX_INPUT_PIXELS:,} pixels; got {size}. Larger images are for "
                "geometry.fit tile"
            )
        self.geometry.require_room(size)
        return self
