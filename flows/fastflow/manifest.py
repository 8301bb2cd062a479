"""What a bundle says of itself: everything about a model but its weights."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from flows.fastflow.model import FlowConfig
from flows.fastflow.score import ScoreRule

MAX_FILES = 256
_MAX_IMAGES = 200_000  # of calibration
_MAX_INPUT_PIXELS = 2048 * 2048

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_Side = Annotated[int, Field(ge=32, le=4096)]
_Rate = Annotated[float, Field(gt=0, lt=1)]


class _Record(BaseModel):
    # A threshold that is not a number would pass every part, since no score is above it.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Backbone(_Record):
    """The frozen backbone and what it was fed."""

    name: _Name
    weights_sha256: Sha256
    out_indices: list[Annotated[int, Field(ge=0, le=1000)]] = Field(min_length=1, max_length=8)
    channels: list[int] = Field(min_length=1, max_length=8)
    strides: list[int] = Field(min_length=1, max_length=8)
    mean: list[float] = Field(max_length=16)
    std: list[float] = Field(max_length=16)


class Normalisation(_Record):
    """How feature maps are normalised before the flows."""

    mode: Literal["channel", "layer"]
    pooling: int = Field(ge=1, le=15)

    @field_validator("pooling")
    @classmethod
    def _odd(cls, pooling: int) -> int:
        if pooling % 2 == 0:
            raise ValueError(f"must be odd; got {pooling}")
        return pooling


class ThresholdRecord(_Record):
    """`flows.fastflow.conformal.Threshold` as stored."""

    reject: float
    target_fpr: _Rate
    certified: bool
    achievable_fpr: _Rate
    n_calibration: int = Field(ge=1)


class Calibration(_Record):
    """Scores of held-out good images, and the map values that fix the heatmap's colours."""

    scores: list[float] = Field(
        min_length=1, max_length=_MAX_IMAGES, description="sorted, of good images never trained on"
    )
    statistics: list[list[float]] | None = Field(
        default=None,
        max_length=_MAX_IMAGES,
        description="features' mean and deviation per scale, a row for each of `scores`; to tell drift by",
    )
    map_typical: float = Field(description="median map value of those images: the dark end")
    map_threshold: float = Field(description="pixel threshold: the middle of the colour scale")


class DataRecord(_Record):
    """What the model was trained on."""

    fingerprint: Sha256
    licence: str | None
    n_fit: int
    n_calibration: int


class Golden(_Record):
    """A picture that travels with the bundle, and the score it must get."""

    file: _Name
    score: float


class Manifest(_Record):
    """Everything about a model but its weights."""

    schema_version: Literal[1] = 1
    category: str
    version: str
    created: datetime
    backbone: Backbone
    input_size: tuple[_Side, _Side] = Field(description="(height, width)")
    decode: Literal["rgb8"] = "rgb8"
    resize: Literal["area-or-linear"] = "area-or-linear"
    normalisation: Normalisation
    flow: FlowConfig
    score: ScoreRule
    calibration: Calibration
    thresholds: dict[Literal["float32"], ThresholdRecord] = Field(
        min_length=1, description="by precision of the engine"
    )
    metrics: dict[_Name, float] = Field(max_length=256)
    data: DataRecord
    libraries: dict[_Name, str] = Field(max_length=256)
    golden: list[Golden] = Field(min_length=1, max_length=64)
    files: dict[_Name, Sha256] = Field(max_length=MAX_FILES)

    @field_validator("input_size")
    @classmethod
    def _payable(cls, size: tuple[int, int]) -> tuple[int, int]:
        if size[0] * size[1] > _MAX_INPUT_PIXELS:
            raise ValueError(f"has more than {_MAX_INPUT_PIXELS:,} pixels; got {size}")
        return size

    @model_validator(mode="after")
    def _complete_statistics(self) -> Self:
        rows = self.calibration.statistics
        if rows is None:
            return self
        wanted = len(self.calibration.scores), 2 * len(self.backbone.out_indices)
        if len(rows) != wanted[0] or any(len(row) != wanted[1] for row in rows):
            raise ValueError(f"calibration.statistics must be {wanted[0]} rows of {wanted[1]} numbers")
        return self
