"""Helpers for tests of recalibration."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from starlette.testclient import TestClient

from app.registry.calibrations import CalibrationTarget, StoredCalibration
from flows.fastflow.bundle import bundle
from flows.fastflow.manifest import Calibration, Precision
from tests.conftest import picture, png

URL = "/v1/models/tiny/calibrations"


def good_images(count: int, seed: int = 5000) -> list[bytes]:
    """Create images of good parts that no model has seen."""
    return [png(picture(seed + i)) for i in range(count)]


def post_calibration(
    client: TestClient,
    images: list[bytes],
    *,
    headers: dict[str, str] | None = None,
    if_match: str | None = "*",
    **query: str,
) -> httpx2.Response:
    """Post images to recalibrate the category tiny."""
    files = [("file", (f"{i}.png", data)) for i, data in enumerate(images)]
    match = {} if if_match is None else {"If-Match": if_match}
    return client.post(
        URL, files=files or None, params={"reason": "new lamp", **query}, headers={**match, **(headers or {})}
    )


def target_of(folder: Path, precision: Precision = "float32") -> CalibrationTarget:
    """Return the calibration target of a bundle at all stations."""
    manifest = bundle.read_manifest(folder)
    return CalibrationTarget(manifest, bundle.manifest_sha256(folder, manifest), precision)


def make_calibration(slot: CalibrationTarget, scores: list[float], **changes: Any) -> StoredCalibration:
    """Create a stored calibration with given scores."""
    return StoredCalibration(
        manifest_sha256=slot.sha256,
        precision=slot.precision,
        station=slot.station,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        by="somebody",
        reason="a test",
        pictures="0" * 64,
        target_fpr=0.1,
        calibration=Calibration(scores=scores, map_typical=0.5, map_threshold=2.0),
    ).model_copy(update=changes)
