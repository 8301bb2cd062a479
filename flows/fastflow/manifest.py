"""Manifest of a bundle: everything about a model except its weights."""

from datetime import datetime
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from flows.fastflow.config import MAX_SAMPLE_BITS, FlowConfig, Geometry, Pooled, ScoreRule

MAX_FILES = 256
_MAX_IMAGES = 200_000  # of calibration
MAX_INPUT_PIXELS = 2048 * 2048

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_Side = Annotated[int, Field(ge=32, le=4096)]
_MapSide = Annotated[int, Field(ge=1, le=4096)]
_Rate = Annotated[float, Field(gt=0, lt=1)]
SampleBits = Annotated[int, Field(ge=8, le=MAX_SAMPLE_BITS)]
# Coupling halves need two channels. The limit keeps a head built from a forged manifest small enough to
# compare with its file.
_Channels = Annotated[int, Field(ge=2, le=2**14)]

# Precision of an engine, with the engine's name if it rounds in other places. In float32 all engines agree;
# every reduced precision has its own scores and its own calibration.
Precision = Literal["float32", "bfloat16", "openvino-bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
MAX_MAPS = 8
# Validation of lists with an entry per image stops at the first error: errors take far more memory.
_Statistics = Annotated[list[float], Field(max_length=2 * MAX_MAPS, fail_fast=True)]


class _ManifestModel(BaseModel):
    # A NaN threshold would pass every part, because no score is above it. Tracebacks hide the input, which
    # would be written out for each error.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Backbone(_ManifestModel):
    """Frozen backbone and the normalisation of its input."""

    name: _Name
    weights_sha256: Sha256
    out_indices: list[Annotated[int, Field(ge=0, le=1000)]] = Field(min_length=1, max_length=MAX_MAPS)
    channels: list[_Channels] = Field(min_length=1, max_length=MAX_MAPS)
    strides: list[Annotated[int, Field(ge=1, le=1024)]] = Field(min_length=1, max_length=MAX_MAPS)
    mean: list[float] = Field(max_length=16)
    std: list[float] = Field(max_length=16)

    @model_validator(mode="after")
    def _require_equal_lengths(self) -> Self:
        if not len(self.out_indices) == len(self.channels) == len(self.strides):
            raise ValueError("out_indices, channels and strides must have one entry for each map")
        return self


class Normalisation(_ManifestModel):
    """Normalisation of feature maps before the flows, see `normaliser.FeatureNormaliser`."""

    mode: Literal["channel", "layer"] = Field(
        description="by mean and deviation of each channel in training, or layer norm"
    )
    pooling: int = Field(ge=1, le=15, description="window of the average pooling before it, odd")
    pooled: Pooled = Field(default="coarsest", description="scales that are pooled")

    @field_validator("pooling")
    @classmethod
    def _require_odd(cls, pooling: int) -> int:
        if pooling % 2 == 0:
            raise ValueError(f"must be odd; got {pooling}")
        return pooling


class Gaussian(_ManifestModel):
    """Gaussian of positions beside the flows, see `gaussian.PositionGaussian`."""

    sizes: tuple[tuple[_MapSide, _MapSide], ...] | None = Field(
        default=None,
        max_length=MAX_MAPS,
        fail_fast=True,
        description="(height, width) of each scale, whose positions have own means; null for one mean",
    )
    cells: int | None = Field(
        default=None,
        ge=2,
        le=64,
        description="cells along each side of a scale with a covariance each; null for none",
    )


class LearnedRecord(_ManifestModel):
    """Part of the score learned from reviewed defects, see `flows.fastflow.learning.fit`."""

    defects: int = Field(ge=1, description="reviewed defects that it was fitted to")
    good: int = Field(ge=1, description="good images that it was fitted to, none of which calibrate")
    copies: int = Field(
        ge=0, description="reviewed images left out: they have the pixels of another or of a training image"
    )
    reviews: Sha256 = Field(description="fingerprint of the reviewed images and their verdicts")
    strength: float = Field(
        gt=0, le=1, description="share of its full weight, from defects that were left out of the fit"
    )
    reject_before: float = Field(description="threshold in float32 without this part")
    caught_before: int = Field(ge=0, description="of the reviewed defects, above that threshold")
    caught: int = Field(
        ge=0, description="of the reviewed defects, each left out of the fit, above the threshold now"
    )


class ThresholdRecord(_ManifestModel):
    """Stored form of `flows.fastflow.calibration.conformal.ConformalThreshold`."""

    reject: float
    target_fpr: _Rate
    certified: bool
    achievable_fpr: float = Field(gt=0, le=1)
    n_calibration: int = Field(ge=1)


class Calibration(_ManifestModel):
    """Scores of held-out good images, and the map values of the heatmap's colour scale."""

    scores: list[float] = Field(
        min_length=1,
        max_length=_MAX_IMAGES,
        fail_fast=True,
        description="sorted, of good images never trained on",
    )
    statistics: list[_Statistics] | None = Field(
        default=None,
        max_length=_MAX_IMAGES,
        fail_fast=True,
        description="features' mean and deviation per scale, a row for each of `scores`; to tell drift by",
    )
    pictures: list[float] | None = Field(
        default=None,
        max_length=_MAX_IMAGES,
        fail_fast=True,
        description="what the whole image added to each of `scores`; a region of interest leaves it out",
    )
    cross_fitted: bool = Field(
        default=False,
        description="whether each image was scored by a fit to the others: its rates are not certified",
    )
    map_typical: float = Field(description="median map value of those images: the dark end")
    map_threshold: float = Field(description="pixel threshold: the middle of the colour scale")

    @model_validator(mode="after")
    def _require_ordered_colours(self) -> Self:
        if not self.map_typical < self.map_threshold:
            raise ValueError(f"map_threshold must be above map_typical {self.map_typical}")
        return self

    @model_validator(mode="after")
    def _require_part_per_score(self) -> Self:
        if self.pictures is not None and len(self.pictures) != len(self.scores):
            raise ValueError(f"{len(self.scores)} scores need as many pictures; got {len(self.pictures)}")
        return self

    def statistics_fit(self, scales: int) -> bool:
        """Check for a row per score with two numbers per scale; missing statistics are valid."""
        if self.statistics is None:
            return True
        rows = len(self.statistics) == len(self.scores)
        return rows and all(len(row) == 2 * scales for row in self.statistics)


class DataRecord(_ManifestModel):
    """Training data of the model."""

    fingerprint: Sha256
    licence: str | None
    n_fit: int
    n_calibration: int


class Golden(_ManifestModel):
    """Image in the bundle and the score that it must get."""

    file: _Name
    score: float
    reduced: dict[Precision, float] = Field(
        default={}, description="the score by engines of other precision than float32"
    )


class Manifest(_ManifestModel):
    """Everything about a model except its weights."""

    schema_version: Literal[1] = 1
    category: str
    version: str
    created: datetime
    backbone: Backbone
    input_size: tuple[_Side, _Side] = Field(description="(height, width)")
    decode: Literal["rgb8"] = "rgb8"
    sample_bits: SampleBits = Field(
        default=MAX_SAMPLE_BITS, description="of samples of 16 bits, how many of the lowest hold the value"
    )
    resize: Literal["area-or-linear"] = "area-or-linear"
    geometry: Geometry
    normalisation: Normalisation
    gaussian: Gaussian = Gaussian()
    flow: FlowConfig
    learned: LearnedRecord | None = Field(default=None, description="null for a version without this part")
    score: ScoreRule
    calibration: Calibration = Field(description="of the engine float32")
    reduced: dict[Precision, Calibration] = Field(
        default={}, description="calibrations of engines of other precision: images scored by themselves"
    )
    thresholds: dict[Precision, ThresholdRecord] = Field(
        min_length=1, description="by precision of the engine"
    )
    review_fpr: _Rate | None = Field(
        default=None, description="share of good parts that may be rejected or sent to a person"
    )
    metrics: dict[_Name, float] = Field(max_length=256)
    data: DataRecord
    libraries: dict[_Name, str] = Field(max_length=256)
    golden: list[Golden] = Field(min_length=1, max_length=64, fail_fast=True)
    files: dict[_Name, Sha256] = Field(max_length=MAX_FILES)

    @field_validator("input_size")
    @classmethod
    def _require_small_input(cls, size: tuple[int, int]) -> tuple[int, int]:
        if size[0] * size[1] > MAX_INPUT_PIXELS:
            raise ValueError(f"has more than {MAX_INPUT_PIXELS:,} pixels; got {size}")
        return size

    @field_validator("golden")
    @classmethod
    def _require_distinct_files(cls, golden: list[Golden]) -> list[Golden]:
        if len({one.file for one in golden}) < len(golden):
            raise ValueError("two entries name the same file; list each file once")
        return golden

    @model_validator(mode="after")
    def _require_complete_calibrations(self) -> Self:
        calibrations = {**self.reduced, "float32": self.calibration}
        if self.thresholds.keys() != calibrations.keys() or "float32" in self.reduced:
            raise ValueError(
                f"there must be a threshold for each calibrated engine, {sorted(calibrations)}; "
                f"got {sorted(self.thresholds)}"
            )
        for calibration in calibrations.values():
            if not calibration.statistics_fit(len(self.backbone.out_indices)):
                raise ValueError(
                    f"calibration.statistics must be {len(calibration.scores)} rows of "
                    f"{2 * len(self.backbone.out_indices)} numbers"
                )
        return self

    @model_validator(mode="after")
    def _require_size_per_map(self) -> Self:
        if self.gaussian.sizes is None:
            return self
        if len(self.gaussian.sizes) != len(self.backbone.channels):
            raise ValueError(f"gaussian.sizes must be of {len(self.backbone.channels)} maps")
        height, width = self.input_size
        if any(h > height or w > width for h, w in self.gaussian.sizes):
            raise ValueError(f"gaussian.sizes must lie within the input, {self.input_size}")
        return self

    @model_validator(mode="after")
    def _require_room_for_images(self) -> Self:
        self.geometry.require_room(self.input_size)
        return self

    @model_validator(mode="after")
    def _require_wider_review_rate(self) -> Self:
        if self.review_fpr is not None:
            for record in self.thresholds.values():
                if self.review_fpr <= record.target_fpr:
                    raise ValueError(
                        "review_fpr includes rejected parts, so it must be above target_fpr, "
                        f"{record.target_fpr:g}; got {self.review_fpr:g}"
                    )
        return self

    @property
    def starter(self) -> bool:
        """True for a version without flows, whose images both fit and calibrate it."""
        return self.flow.steps == 0

    def calibration_of(self, precision: Precision) -> Calibration | None:
        """Return the calibration for an engine's precision; None if the bundle has none."""
        return self.calibration if precision == "float32" else self.reduced.get(precision)
