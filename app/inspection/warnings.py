"""Warnings about an image, beside its decision."""

from app.schemas.predict import WarningCode
from flows.fastflow.calibration.calibrator import ModelOutput, Thresholds
from flows.fastflow.manifest import Manifest


def find_warnings(
    manifest: Manifest, used: Thresholds, score: float, output: ModelOutput
) -> list[WarningCode]:
    found: list[WarningCode] = []
    if used.is_near(score):
        found.append("near-threshold")
    if used.calibrator.is_unlike(output):
        found.append("unlike-training")
    if manifest.starter:
        found.append("starter-model")
    return found
