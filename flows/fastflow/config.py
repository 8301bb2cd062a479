"""Settings of a model that its bundle records: geometry, flows and score rule."""

from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Upsampling: TypeAlias = Literal["spline", "linear"]
Kernels: TypeAlias = Literal["3-1", "3", "depthwise-5"]
Pooled: TypeAlias = Literal["all", "coarsest"]
Shrink: TypeAlias = Literal["area", "halves-area"]

MIN_GOOD_IMAGES = 10  # different ones, of a version
MAX_SAMPLE_BITS = 16
MAX_SIDE = 16_384  # of an image, in pixels of the model


class GeometrySettings(BaseModel):
    """Settings of the fit of images to the model's input size, whatever values `fit` may have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    fit: str
    shrink: Shrink = Field(
        default="halves-area",
        description="reduction of larger images: exact area average, or faster by halving before it",
    )
    margin: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="input pixels on each side that show the image's reflection and do not count",
    )
    overlap: float = Field(
        default=0.25,
        ge=0.125,
        le=0.75,
        description="`tile`: least share of a tile that its neighbour covers too",
    )
    scale: float | None = Field(
        default=None,
        gt=0,
        le=4,
        description="`tile`: pixels of the model per pixel of the image; null for 1",
    )
    working_size: int | None = Field(
        default=None,
        ge=32,
        le=MAX_SIDE,
        description="`tile`: longer side of every image in pixels of the model, instead of `scale`",
    )
    max_pixels: int = Field(
        default=2**22,
        ge=2**12,
        le=2**24,
        description="`tile`: most pixels of an image before the model; larger images are reduced",
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.scale is not None and self.working_size is not None:
            raise ValueError(
                "geometry.scale and geometry.working_size contradict each other; set one of them"
            )
        if self.fit != "tile":
            for name in ("overlap", "scale", "working_size", "max_pixels"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"geometry.{name} needs geometry.fit: tile; set it, or remove geometry.{name}"
                    )
        return self

    def require_room(self, input_size: tuple[int, int]) -> None:
        """Check that the margins leave at least half of the input.

        Raises:
            ValueError: the margins take more than half of its height or width.
        """
        if 4 * self.margin > min(input_size):
            raise ValueError(
                f"a geometry.margin of {self.margin} on each side leaves less than half of the input, "
                f"{input_size[0]} high and {input_size[1]} wide; set at most {min(input_size) // 4}"
            )


class Geometry(GeometrySettings):
    """Fit of images to the model's input size; recorded in the bundle.

    ``stretch`` resizes to the input size and may change the aspect ratio. ``pad`` keeps the aspect ratio and
    fills the rest of the input by reflection. ``tile`` covers the image with overlapping tiles of the input
    size, at a scale that does not depend on the input size.
    """

    fit: Literal["stretch", "pad", "tile"] = Field(
        default="stretch", description="resize to the input size, pad to its aspect ratio, or cut into tiles"
    )


class FlowConfig(BaseModel):
    """Architecture of the flows; recorded in the bundle, because the weights need it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: int = Field(
        default=8,
        ge=0,
        le=64,
        description="coupling steps per scale; 0 for a starter, whose energies are the Gaussian's alone",
    )
    kernels: Kernels = Field(
        default="depthwise-5",
        description="convolutions of the conditioners: 3x3 alternating with 1x1, 3x3 only, or 1x1 with a "
        "depthwise 5x5 between them",
    )
    hidden_ratio: float = Field(
        default=1.0, gt=0, le=8, description="hidden channels per conditioning channel"
    )
    hidden_limit: int | None = Field(default=160, ge=1, description="most hidden channels; null for no limit")
    clamp: float = Field(default=2.0, gt=0, le=20, description="bound c of the log-scale")
    clamp_formula: Literal["c*tanh(a/c)"] = Field(default="c*tanh(a/c)", description="formula of that bound")
    permutation: Literal["index", "halves"] = Field(
        default="halves",
        description="random order of the channels after each step, or halves that take turns",
    )


class Scoring(BaseModel):
    """Settings from energies to score and map, without the Gaussian's share in the map."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    top_fraction: float = Field(
        default=0.01, gt=0, le=1, description="share of the most anomalous pixels that are averaged"
    )
    energy_floor: float = Field(default=0.01, ge=1e-37, description="energy below which scales do not differ")
    enlarging: Upsampling = Field(
        default="spline",
        description="interpolation from energies to pixels: a cubic B-spline, which smooths, or linear",
    )
    sharpness: float = Field(
        default=3.0, ge=0.1, le=100, description="inverse temperature of the map's soft minimum over scales"
    )
    picture: float = Field(
        default=0.1,
        ge=0,
        le=10,
        description="weight of the Gaussians of images and of cells in the image score; 0 for none",
    )


class ScoreRule(Scoring):
    """Complete settings from energies to score and map; recorded in the bundle."""

    gaussian: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="share of the position's Gaussian in the map, the flow has the rest",
    )
