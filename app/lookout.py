"""Answers in the words of Amazon Lookout for Vision, DetectAnomalies of its API of 2020-11-20.

The service ended on 31 October 2025. Where it had classes of anomalies there is one here, `anomaly`: what is
above the pixel threshold.
"""

import base64
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.inspection import MASK_COLOUR, Answer
from app.schemas.predict import Inspection

_WHITE = "#FFFFFF"


class ImageSource(BaseModel):
    """Where the image came from."""

    Type: Literal["direct"] = Field("direct", description="With the request.")


class PixelAnomaly(BaseModel):
    """What of the image something covers."""

    TotalPercentageArea: float = Field(description="As a share, from 0 to 1.", examples=[0.0015])
    Color: str = Field(description="In AnomalyMask.", examples=[MASK_COLOUR])


class Anomaly(BaseModel):
    """Something that was found; the first one is the background, which is no anomaly."""

    Name: Literal["background", "anomaly"]
    PixelAnomaly: PixelAnomaly


class DetectAnomalyResult(BaseModel):
    """What the model says of the image."""

    Source: ImageSource
    IsAnomalous: bool = Field(description="Whether the decision is not PASS.")
    Confidence: Annotated[float, Field(ge=0, le=1)] = Field(
        description="Anomalous: one minus the p-value. Else 1 - target_fpr / (2 p), at least 0.5: the more "
        "good parts score higher than this one, the surer.",
        examples=[0.995],
    )
    Anomalies: list[Anomaly] = Field(
        description="The background; and where the map is above the pixel threshold, the anomaly. They "
        "explain the decision and do not make it."
    )
    AnomalyMask: str = Field(
        description="Base64 of a PNG of the image's size: white, and the anomaly in its colour.",
        examples=["iVBORw0KGgo="],
    )


class Detected(BaseModel):
    """The answer."""

    DetectAnomalyResult: DetectAnomalyResult


def detected(answer: Answer) -> Detected:
    """An inspection, whose mask was drawn, in Lookout's words."""
    inspection = answer.inspection
    area = inspection.anomalous_area_fraction
    anomalies = [Anomaly(Name="background", PixelAnomaly=_covers(1 - area, _WHITE))]
    if area > 0:
        anomalies.append(Anomaly(Name="anomaly", PixelAnomaly=_covers(area, MASK_COLOUR)))
    return Detected(
        DetectAnomalyResult=DetectAnomalyResult(
            Source=ImageSource(),
            IsAnomalous=inspection.decision != "PASS",
            Confidence=confidence(inspection),
            Anomalies=anomalies,
            AnomalyMask=base64.b64encode(answer.files["mask"]).decode(),
        )
    )


def confidence(inspection: Inspection) -> float:
    """How sure the decision is, from 0 to 1."""
    if inspection.decision != "PASS":
        return 1 - inspection.p_value
    return min(1.0, max(0.5, 1 - inspection.threshold.target_fpr / (2 * inspection.p_value)))


def _covers(area: float, colour: str) -> PixelAnomaly:
    return PixelAnomaly(TotalPercentageArea=area, Color=colour)
