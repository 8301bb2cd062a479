"""Schemas of predictions."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from .problem import ProblemDetails

Sha256 = Annotated[str, Field(description="SHA-256, hexadecimal.", examples=["9f86d081" * 8])]
_ID = "0193a6b2-7c1e-7d4f-8a53-5d1d3b7a8c11"
Picture = Literal["overlay", "heatmap"]
Decision = Literal["PASS", "REVIEW", "REJECT"]
WarningCode = Literal["near-threshold", "unlike-training", "starter-model"]
Warnings = Annotated[
    list[WarningCode],
    Field(
        description="`near-threshold`: the score is close to `threshold.reject`. `unlike-training`: the "
        "whole image is unlike good ones; perhaps it shows another product. `starter-model`: a starter "
        "version decided.",
        examples=[["near-threshold"]],
    ),
]
FileName = Annotated[str | None, Field(description="Name of the image's file.", examples=["top.png"])]


class ModelUsed(BaseModel):
    """The model that gave an answer."""

    category: str = Field(examples=["bottle"])
    version: str = Field(examples=["20261125T011500-3f9a2c"])
    sha256: Sha256


class CalibrationUsed(BaseModel):
    """The calibration that gave thresholds, p-value and colours."""

    id: str = Field(description="Its id in the audit log.", examples=["9f86d081c3a1"])
    source: Literal["bundle", "line", "station"] = Field(
        description="Made with the version, or later from good images of the line or of this station."
    )


class ThresholdInfo(BaseModel):
    """Thresholds of the decision, and the rates that the calibration supports."""

    reject: float = Field(description="REJECT if the score is above this.", examples=[3.1])
    review: float | None = Field(
        None, description="REVIEW if the score is above this; null without a review band.", examples=[2.7]
    )
    pixel: float = Field(description="Map values above this are unusual. They do not decide.", examples=[2.9])
    target_fpr: float = Field(description="The false-reject rate that was set.", examples=[0.005])
    certified: bool = Field(description="Whether the calibration images suffice to guarantee `target_fpr`.")
    achievable_fpr: float = Field(
        description="Guaranteed false-reject rate, on average over calibrations.", examples=[0.0047]
    )
    fpr_at_95_confidence: float = Field(
        description="False-reject rate that 95 of 100 calibrations do not exceed.", examples=[0.0142]
    )
    n_calibration: int = Field(description="Good images it was calibrated on.", examples=[210])
    calibration: CalibrationUsed


class Region(BaseModel):
    """A connected part of the map above `threshold.pixel`, in pixels of the uploaded image."""

    bbox: tuple[int, int, int, int] = Field(description="x, y, width, height.", examples=[[412, 96, 60, 41]])
    contour: list[tuple[int, int]] = Field(
        description="The outline, (x, y) of each corner.", examples=[[[412, 96], [471, 96], [440, 136]]]
    )
    area_px: int = Field(description="Pixels it covers.", examples=[1204])
    area_fraction: float = Field(description="The same as a share of the image.", examples=[0.0015])
    peak: float = Field(description="The map's largest value in it.", examples=[6.0])


class Links(BaseModel):
    """Links to the inspection, valid while it is stored."""

    inspection: str = Field(examples=[f"/v1/inspections/{_ID}"])
    overlay: str = Field(examples=[f"/v1/inspections/{_ID}/overlay.png"])
    heatmap: str = Field(examples=[f"/v1/inspections/{_ID}/heatmap.png"])
    map: str = Field(examples=[f"/v1/inspections/{_ID}/map.npy"])


def links_of(inspection_id: str) -> Links:
    base = f"/v1/inspections/{inspection_id}"
    return Links(
        inspection=base, overlay=f"{base}/overlay.png", heatmap=f"{base}/heatmap.png", map=f"{base}/map.npy"
    )


class RegionUsed(BaseModel):
    """The region of interest in force: pixels outside it did not count."""

    station: str | None = Field(
        description="null: the region of stations without one of their own.", examples=["line-3"]
    )
    revision: int = Field(description="Revision of the settings that set it.", examples=[4])


class SettingsUsed(BaseModel):
    """Settings of the category at the inspection. The audit log names actor and reason of each change."""

    revision: int = Field(description="0: nothing was ever set.", examples=[5])
    region: RegionUsed | None = Field(description="null: every pixel counted.")


class ImageInfo(BaseModel):
    """The uploaded image, after its EXIF orientation was applied."""

    width: int = Field(examples=[900])
    height: int = Field(examples=[900])
    sha256: Sha256
    sample_bits: int = Field(description="Bits of a 16-bit sample that hold its value, as the model expects.")


class Timing(BaseModel):
    """Milliseconds a request spent, by stage."""

    decode: float = Field(description="Bytes to pixels.", examples=[1.0])
    queue: float = Field(description="Waiting for a thread, all stages together.", examples=[2.0])
    infer: float = Field(description="Pixels to score and map.", examples=[6.0])
    render: float = Field(description="Drawing of requested images.", examples=[2.0])
    total: float = Field(description="From headers to answer, the upload included.", examples=[12.0])


class Inspection(BaseModel):
    """The result of one image."""

    inspection_id: str = Field(description="A UUID of version 7: sorts by time.", examples=[_ID])
    part_id: str | None = Field(examples=["P-000123"])
    product_id: str | None = Field(examples=["bottle-500ml"])
    recipe_id: str | None = Field(examples=["top-light"])
    station: str | None = Field(examples=["line-3"])
    file_name: FileName
    model: ModelUsed
    decision: Decision = Field(
        description="From the score alone: REJECT above `threshold.reject`, else REVIEW above "
        "`threshold.review`, else PASS."
    )
    warnings: Warnings
    score: float = Field(description="Higher is more anomalous.", examples=[4.21])
    p_value: float = Field(description="Share of good parts that score this high.", examples=[0.0047])
    threshold: ThresholdInfo
    settings: SettingsUsed
    regions: list[Region] | None = Field(
        description="Highest peak first. They explain the decision, which follows from the score alone. "
        "null: not requested."
    )
    anomalous_area_fraction: float = Field(
        description="Share of the map's pixels above `threshold.pixel`.", examples=[0.0015]
    )
    image: ImageInfo
    links: Links | None = Field(description="null with store=false.")
    timing_ms: Timing
    batch_size: int = Field(description="Images inspected together.", examples=[1])
    engine: str = Field(examples=["torch-cpu-float32"])
    audit: bool = Field(description="Whether it was drawn at random for review: the audit sample.")
    inline: dict[Picture, str] | None = Field(
        None,
        description="With `inline` in the query: the requested images, as base64 of a PNG.",
        examples=[{"overlay": "iVBORw0KGgo="}],
    )


class BatchItem(BaseModel):
    """One image of predict:batch: its inspection or its problem."""

    index: int = Field(description="Position in the request, from 0.", examples=[0])
    filename: str | None = Field(description="The file's name in the request.", examples=["top.png"])
    status: int = Field(description="The HTTP status that the image alone would get.", examples=[200])
    inspection: Inspection | None
    problem: ProblemDetails | None


class BatchAnswer(BaseModel):
    """The images of one request, in its order."""

    decision: Decision | None = Field(
        description="The worst decision of the images. null if an image could not be inspected and no other "
        "is a REJECT."
    )
    items: list[BatchItem]
