"""Schemas of models: categories, versions and manifests."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from .predict import Sha256, ThresholdInfo

CategoryName = Annotated[str, Field(examples=["bottle"])]
VersionName = Annotated[str, Field(examples=["20261125T011500-3f9a2c"])]


class ModelSummary(BaseModel):
    """A category and its versions."""

    category: CategoryName
    active: VersionName | None = Field(description="The version that serves.")
    versions: list[VersionName] = Field(description="Oldest first.")


class ModelList(BaseModel):
    """The models of the models folder."""

    models: list[ModelSummary]


class InputSize(BaseModel):
    """A size in pixels."""

    width: int = Field(examples=[256])
    height: int = Field(examples=[256])


class BackboneInfo(BaseModel):
    """The frozen backbone whose features the flows model."""

    name: str = Field(examples=["tf_efficientnet_lite0"])
    out_indices: list[int] = Field(description="timm's indices of the stages.", examples=[[2, 3, 4]])


class TrainingData(BaseModel):
    """The data that a version was trained on."""

    licence: str | None = Field(examples=["CC BY-NC-SA 4.0"])
    fingerprint: Sha256
    n_fit: int = Field(description="Good images it was fitted to.", examples=[179])
    n_calibration: int = Field(
        description="Good images that calibrate it; of a starter, those of the fit.", examples=[30]
    )


class GoldenResult(BaseModel):
    """A held-out image and its score at training."""

    file: str = Field(examples=["golden/highest.png"])
    score: float = Field(examples=[2.93])


class LearnedInfo(BaseModel):
    """The part of a version's score that reviewed defects taught."""

    defects: int = Field(description="Reviewed defects that it was fitted to.", examples=[12])
    good: int = Field(
        description="Good images that it was fitted to: reviewed ones, and those of the training.",
        examples=[219],
    )
    copies: int = Field(description="Reviewed images left out, with the pixels of another.", examples=[0])
    strength: float = Field(description="Share of its full weight.", examples=[0.8])
    caught_before: int = Field(
        description="Of the defects, those above the threshold without this part.", examples=[9]
    )
    caught: int = Field(
        description="Of the defects, those above the threshold, each left out of the fit.", examples=[11]
    )


class VersionDetails(BaseModel):
    """The content of a version's manifest."""

    created: datetime
    sha256: Sha256
    starter: bool = Field(
        description="Whether it has no flows: made in seconds, of images that both fit and calibrate it."
    )
    backbone: BackboneInfo
    input_size: InputSize
    fit: Literal["stretch", "pad", "tile"] = Field(
        description="The fit of an image to the input size: stretched; padded, with its aspect ratio; or cut "
        "into tiles. Score maps have the input size (stretch) or the image's aspect ratio (pad, tile)."
    )
    thresholds: dict[str, ThresholdInfo] = Field(description="By precision of the engine.")
    metrics: dict[str, float] = Field(
        description="Of the last epoch: negative log-likelihood, in nats per dimension, of the images the "
        "flows were fitted to, and of those held out.",
        examples=[{"fit_nll": 0.91, "held_out_nll": 1.02}],
    )
    data: TrainingData
    learned: LearnedInfo | None = Field(description="null if the version has not learned from reviews.")
    golden: list[GoldenResult] = Field(
        description="Images in the bundle. The version serves only if they score the same here, to 1e-3."
    )
    report: list[str] = Field(
        description="Files of the bundle's report, found under .../report/.",
        examples=[["config.yaml", "data_check.json", "metrics.jsonl"]],
    )


class Version(BaseModel):
    """A version of a category."""

    version: VersionName
    active: bool = Field(description="Whether it serves.")
    loaded: bool = Field(description="Whether it is in memory; any other is loaded at its first request.")
    details: VersionDetails | None = Field(description="null when the manifest cannot be read.")
    trouble: str | None = Field(
        default=None,
        description="The reason why the manifest cannot be read; null if it can.",
        examples=["the bundle says that it is bottle/v1: it was moved or renamed"],
    )


class Model(BaseModel):
    """A category with the details of its versions."""

    category: CategoryName
    active: VersionName | None = Field(description="The version that serves.")
    previous: VersionName | None = Field(description="The version that a rollback would go to.")
    versions: list[Version] = Field(description="Oldest first.")


class Activation(BaseModel):
    """The version that serves now, and the one that served before."""

    category: CategoryName
    active: VersionName = Field(description="The version that serves.")
    previous: VersionName | None = Field(description="The version that served until now.")


class UploadedVersion(BaseModel):
    """An uploaded version, which does not serve yet."""

    category: CategoryName
    version: VersionName
