"""What a bundle says of itself: everything about a model but its weights."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from flows.fastflow.model import FlowConfig
from flows.fastflow.score import ScoreRule

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    # A threshold that is not a number would pass every part, since no score is above it.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Backbone(_Record):
    """The frozen backbone and what it was fed."""

    name: str
    weights_sha256: Sha256
    out_indices: list[int] = Field(min_length=1, max_length=8)
    channels: list[int] = Field(min_length=1, max_length=8)
    strides: list[int] = Field(min_length=1, max_length=8)
    mean: list[float]
    std: list[float]


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
    target_fpr: float
    certified: bool
    achievable_fpr: float
    n_calibration: int


class Calibration(_Record):
    """Scores of held-out good images, and the map values that fix the heatmap's colours."""

    scores: list[float] = Field(min_length=1, description="sorted, of good images never trained on")
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

    file: str
    score: float


class Manifest(_Record):
    """Everything about a model but its weights."""

    schema_version: Literal[1] = 1
    category: str
    version: str
    created: datetime
    backbone: Backbone
    input_size: tuple[Annotated[int, Field(ge=32, le=4096)], Annotated[int, Field(ge=32, le=4096)]] = Field(
        description="(height, width)"
    )
    decode: Literal["rgb8"] = "rgb8"
    resize: Literal["area-or-linear"] = "area-or-linear"
    normalisation: Normalisation
    flow: FlowConfig
    score: ScoreRule
    calibration: Calibration
    thresholds: dict[Literal["float32"], ThresholdRecord] = Field(
        min_length=1, description="by precision of the engine"
    )
    metrics: dict[str, float]
    data: DataRecord
    libraries: dict[str, str]
    golden: list[Golden] = Field(min_length=1)
    files: dict[str, Sha256]
