"""What tests of renewed calibrations share."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from starlette.testclient import TestClient

from app.registry.calibrations import Renewal, Slot
from flows.fastflow.bundle import bundle
from flows.fastflow.manifest import Calibration, Precision
from tests.conftest import picture, png

URL = "/v1/models/tiny/calibrations"


def good(count: int, seed: int = 5000) -> list[bytes]:
    """Pictures of good parts that no model has seen."""
    return [png(picture(seed + i)) for i in range(count)]


def send(
    client: TestClient,
    pictures: list[bytes],
    *,
    headers: dict[str, str] | None = None,
    if_match: str | None = "*",
    **query: str,
) -> httpx2.Response:
    """Renew the calibration of the category tiny."""
    files = [("file", (f"{i}.png", data)) for i, data in enumerate(pictures)]
    match = {} if if_match is None else {"If-Match": if_match}
    return client.post(
        URL, files=files or None, params={"reason": "new lamp", **query}, headers={**match, **(headers or {})}
    )


def slot_of(folder: Path, precision: Precision = "float32") -> Slot:
    """What a calibration of a bundle is for, at all stations."""
    manifest = bundle.read_manifest(folder)
    return Slot(manifest, bundle.manifest_sha256(folder, manifest), precision)


def renewal(slot: Slot, scores: list[float], **changes: Any) -> Renewal:
    """A calibration that was made up."""
    return Renewal(
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
