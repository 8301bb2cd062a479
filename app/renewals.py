"""A calibration that was made after its version: what is stored of it, and for what it holds."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.fastflow.bundle import first_fault
from flows.fastflow.calibration import Calibrator
from flows.fastflow.detector import Detector
from flows.fastflow.manifest import Calibration, Manifest, Precision, Sha256
from flows.fastflow.plain_files import read_file

MAX_BYTES: Final = 64 * 2**20

Text = Annotated[str, Field(min_length=1, max_length=500)]
Station = Annotated[str, Field(min_length=1, max_length=256)]


class Renewal(BaseModel):
    """A calibration as stored.

    Attributes:
        category: whose.
        version: of the model that scored the pictures.
        manifest_sha256: of that version, so that no other of the same name is judged by it.
        precision: of the engine that scored them.
        station: for which; None for all that have none of their own.
        created: when, UTC.
        by: who asked for it.
        reason: why.
        pictures: `fingerprint` of the pictures.
        target_fpr: rate of the pixel threshold, and of the others where nobody asks for another.
        calibration: what was found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    category: str
    version: str
    manifest_sha256: Sha256
    precision: Precision
    station: Station | None
    created: datetime
    by: Annotated[str, Field(max_length=500)]
    reason: Text
    pictures: Sha256
    target_fpr: float = Field(gt=0, lt=1)
    calibration: Calibration


@dataclass(frozen=True)
class Slot:
    """What a renewal is for: a version, an engine, and a station, or all without one of their own (None)."""

    manifest: Manifest
    sha256: str
    precision: Precision
    station: str | None = None

    @classmethod
    def of(cls, detector: Detector, station: str | None = None) -> "Slot":
        """That of a loaded model."""
        return cls(detector.manifest, detector.sha256, detector.scorer.precision, station)

    @property
    def file(self) -> str:
        """The file's name; a station's own name may hold anything."""
        if self.station is None:
            return f"{self.precision}.json"
        return f"{self.precision}.{hashlib.sha256(self.station.encode()).hexdigest()[:16]}.json"

    @property
    def whose(self) -> str:
        """For messages."""
        return "all its stations" if self.station is None else f"station {self.station[:64]!r}"


@dataclass(frozen=True)
class InForce:
    """A renewal that was read, and what scores mean by it."""

    renewal: Renewal
    calibrator: Calibrator


def parse(path: Path) -> Renewal:
    """Read what a file holds, whatever it is for.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    try:
        return Renewal.model_validate_json(read_file(path, MAX_BYTES))
    except ValidationError as error:
        raise ValueError(f"{path} is not valid: {first_fault(error)}") from error


def put_in_force(renewal: Renewal, slot: Slot) -> InForce:
    """Make a renewal decide.

    Raises:
        ValueError: it is of another version, engine or station, or its statistics are of another backbone.
    """
    manifest = slot.manifest
    found = renewal.category, renewal.version, renewal.manifest_sha256, renewal.precision, renewal.station
    wanted = manifest.category, manifest.version, slot.sha256, slot.precision, slot.station
    if found != wanted:
        raise ValueError(f"a calibration of {found} was found, not of {wanted}")
    if not renewal.calibration.statistics_fit(len(manifest.backbone.out_indices)):
        raise ValueError("its statistics are of another backbone")
    calibrator = Calibrator(
        renewal.calibration,
        renewal.target_fpr,
        manifest.review_fpr,
        source="line" if slot.station is None else "station",
        identifier=hashlib.sha256(renewal.model_dump_json().encode()).hexdigest()[:12],
    )
    return InForce(renewal, calibrator)
