"""What goes over the wire: the answers of the service, field by field."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

Sha256 = Annotated[str, Field(description="SHA-256, hexadecimal.", examples=["9f86d081" * 8])]
Picture = Literal["overlay", "heatmap"]


class ModelUsed(BaseModel):
    """The model that gave an answer."""

    category: str = Field(examples=["bottle"])
    version: str = Field(examples=["20261125T011500-3f9a2c"])
    sha256: Sha256


class Threshold(BaseModel):
    """Where the decision is taken, and what calibration promises of it."""

    reject: float = Field(description="REJECT if the score is above this.", examples=[3.1])
    pixel: float = Field(description="Map values above this count as anomalous.", examples=[2.9])
    target_fpr: float = Field(description="False-reject rate asked for.", examples=[0.005])
    certified: bool = Field(description="Whether the calibration images suffice to promise `target_fpr`.")
    achievable_fpr: float = Field(
        description="False-reject rate that the threshold keeps, on average over calibrations.",
        examples=[0.0047],
    )
    n_calibration: int = Field(description="Good images it was calibrated on.", examples=[210])


class ImageInfo(BaseModel):
    """The uploaded image, after its EXIF orientation was applied."""

    width: int = Field(examples=[900])
    height: int = Field(examples=[900])
    sha256: Sha256


class Timing(BaseModel):
    """Milliseconds a request spent, by stage."""

    decode: float = Field(description="Bytes to pixels.", examples=[1.0])
    queue: float = Field(description="Waiting for a thread, all stages together.", examples=[2.0])
    infer: float = Field(description="Pixels to score and map.", examples=[6.0])
    render: float = Field(description="Drawing, when a picture was asked for.", examples=[2.0])
    total: float = Field(
        description="From the request's headers to its answer, the upload included.",
        examples=[12.0],
    )


class Inspection(BaseModel):
    """What the model says of one image."""

    inspection_id: str = Field(examples=["0b9c5a3e-7d0f-4f0e-9a53-5d1d3b7a8c11"])
    part_id: str | None = Field(examples=["P-000123"])
    product_id: str | None = Field(examples=["bottle-500ml"])
    recipe_id: str | None = Field(examples=["top-light"])
    station: str | None = Field(examples=["line-3"])
    model: ModelUsed
    decision: Literal["PASS", "REJECT"] = Field(
        description="From the score alone: REJECT if it is above `threshold.reject`."
    )
    score: float = Field(description="Higher is more anomalous.", examples=[4.21])
    p_value: float = Field(
        description="Share of good parts that score at least this high, from calibration.",
        examples=[0.0047],
    )
    threshold: Threshold
    anomalous_area_fraction: float = Field(
        description="Share of the map's pixels above `threshold.pixel`.", examples=[0.0015]
    )
    image: ImageInfo
    timing_ms: Timing
    batch_size: int = Field(description="Images inspected together.", examples=[1])
    engine: str = Field(examples=["torch-cpu-float32"])
    inline: dict[Picture, str] | None = Field(
        None,
        description="Only with `inline` in the query: the pictures asked for, as base64 of a PNG.",
        examples=[{"overlay": "iVBORw0KGgo="}],
    )


class ModelSummary(BaseModel):
    """A category and its versions."""

    category: str = Field(examples=["bottle"])
    active: str | None = Field(description="The version that serves.", examples=["20261125T011500-3f9a2c"])
    versions: list[str] = Field(description="Oldest first.", examples=[["20261125T011500-3f9a2c"]])


class ModelList(BaseModel):
    """The models of the models folder."""

    models: list[ModelSummary]


class Size(BaseModel):
    """A size in pixels."""

    width: int = Field(examples=[256])
    height: int = Field(examples=[256])


class BackboneInfo(BaseModel):
    """The frozen backbone whose features the flows model."""

    name: str = Field(examples=["tf_efficientnet_lite0"])
    out_indices: list[int] = Field(description="timm's indices of the stages.", examples=[[2, 3, 4]])


class TrainingData(BaseModel):
    """What a version was trained on."""

    licence: str | None = Field(examples=["CC BY-NC-SA 4.0"])
    fingerprint: Sha256
    n_fit: int = Field(description="Good images the flows were fitted to.", examples=[179])
    n_calibration: int = Field(description="Good images held out for calibration.", examples=[30])


class VersionDetails(BaseModel):
    """What a version's manifest says."""

    created: datetime
    sha256: Sha256
    backbone: BackboneInfo
    input_size: Size
    thresholds: dict[str, Threshold] = Field(description="By precision of the engine.")
    metrics: dict[str, float] = Field(
        description="Of the last epoch, in nats per dimension: negative log-likelihood of the images the "
        "flows were fitted to, and of those held out. What `flowgauge evaluate` measures is not among them.",
        examples=[{"fit_nll": 0.91, "held_out_nll": 1.02}],
    )
    data: TrainingData


class Version(BaseModel):
    """A version of a category."""

    version: str = Field(examples=["20261125T011500-3f9a2c"])
    active: bool
    details: VersionDetails | None = Field(description="null when the manifest cannot be read.")


class Model(BaseModel):
    """A category with all that is known of its versions."""

    category: str = Field(examples=["bottle"])
    active: str | None = Field(description="The version that serves.", examples=["20261125T011500-3f9a2c"])
    versions: list[Version] = Field(description="Oldest first.")


class Health(BaseModel):
    """A state in one word."""

    status: Literal["live", "ready"]
