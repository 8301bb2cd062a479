"""Calibrations made after a version, with good images of the line or of one of its stations.

    models/<category>/calibrations/<version>/<precision>.json             for all stations
    models/<category>/calibrations/<version>/<precision>.<station>.json   for one: 16 digits of its name's
    sha256

Bundles never change, so a new calibration lies beside its bundle. Each is of one version and one engine:
scores of others say nothing of theirs. A station's own calibration goes before that of the line, and that
before the bundle's.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from app.errors.problems import Problem
from app.registry.catalogue import problems_of
from app.registry.file_cache import DamagedFileError, FileCache
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.calibration.calibrator import Calibrator
from flows.fastflow.detector import Detector
from flows.fastflow.files.atomic_files import replace_file
from flows.fastflow.files.plain_files import read_file
from flows.fastflow.manifest import Calibration, Manifest, Precision, Sha256

_MAX_BYTES: Final = 64 * 2**20


class Renewal(BaseModel):
    """A calibration as stored.

    Attributes:
        manifest_sha256: of the version, so that no other of the same name is judged by it.
        station: for which; None for all that have none of their own.
        pictures: `fingerprint` of the images.
        target_fpr: rate of the pixel threshold, and of the others where nobody asks for another.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    schema_version: Literal[1] = 1
    manifest_sha256: Sha256
    precision: Precision
    station: Annotated[str, Field(min_length=1, max_length=256)] | None
    created: datetime
    by: Annotated[str, Field(max_length=500)]
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    pictures: Sha256
    target_fpr: float = Field(gt=0, lt=1)
    calibration: Calibration


@dataclass(frozen=True)
class Slot:
    """The target of a renewal: a version, an engine and a station, None for the line."""

    manifest: Manifest
    sha256: str
    precision: Precision
    station: str | None = None

    @classmethod
    def of(cls, detector: Detector, station: str | None = None) -> Self:
        """Return the slot of a loaded model."""
        return cls(detector.manifest, detector.sha256, detector.scorer.precision, station)

    @property
    def file(self) -> str:
        """The file's name; a station's own name may hold anything."""
        if self.station is None:
            return f"{self.precision}.json"
        return f"{self.precision}.{hashlib.sha256(self.station.encode()).hexdigest()[:16]}.json"


class InForce(NamedTuple):
    """A renewal that was read, and its calibrator."""

    renewal: Renewal
    calibrator: Calibrator


class CalibrationFiles:
    """The calibrations beside the bundles of a models folder. Safe to use from several threads.

    All methods but `stations` raise the problem model-loading if a file cannot be read and never could:
    nothing is decided by other thresholds than those that were set.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._files: FileCache[InForce] = FileCache()

    def get(self, detector: Detector, station: str | None = None) -> Calibrator:
        """Return the calibration in force for a model at a station; raises as `or_own`."""
        return or_own(detector, self.find(Slot.of(detector, station)))

    def fallback(self, folder: Path, precision: Precision) -> Calibrator | None:
        """Return the line's renewal for a precision that a bundle was not calibrated for, else None.

        Raises:
            BundleError: the bundle cannot be read.
        """
        manifest = bundle.read_manifest(folder)
        if manifest.calibration_of(precision) is not None:
            return None
        found = self.read(Slot(manifest, bundle.manifest_sha256(folder, manifest), precision))
        return None if found is None else found.calibrator

    def find(self, slot: Slot) -> InForce | None:
        """Return the station's renewal, else that of the line; None where the bundle's own is in force."""
        if slot.station is None:
            return self.read(slot)
        return self.read(slot) or self.read(replace(slot, station=None))

    def read(self, slot: Slot) -> InForce | None:
        """Return the renewal for exactly this slot, if there is one."""
        try:
            found = self._load(self._path(slot), slot)
        except DamagedFileError as error:
            raise _unreadable(slot) from error
        # A bundle may be replaced by another of its name.
        if found is not None and found.renewal.manifest_sha256 != slot.sha256:
            raise _unreadable(slot)
        return found

    def stations(self, slot: Slot) -> list[str]:
        """Return the stations that have a renewal of their own for the slot's version and engine, sorted.

        Files that cannot be read are left out: decisions at their stations say so.
        """
        found = []
        for path in self._path(slot).parent.glob(f"{slot.precision}.*.json"):
            with suppress(DamagedFileError):
                one = self._load(path, slot)
                if one is not None and one.renewal.station is not None:
                    found.append(one.renewal.station)
        return sorted(found)

    def change(self, slot: Slot, edit: Callable[[InForce | None], Renewal | None]) -> InForce | None:
        """Replace a renewal or remove it.

        Args:
            slot: its target.
            edit: receives the renewal there is, or None, and returns the new one, or None to remove it; may
                raise to refuse.

        Raises:
            Problem: conflict if the new one could decide nothing, the version could not serve
                without the old one, or another process has been changing the category for long; unknown-model
                if the version was deleted meanwhile; or what `edit` raises.
        """
        path = self._path(slot)
        category, version = slot.manifest.category, slot.manifest.version
        with problems_of(self._models, category), models_folder.lock_category(self._models, category):
            after = edit(self.read(slot))
            if after is None:
                if slot.station is None and slot.manifest.calibration_of(slot.precision) is None:
                    raise Problem(
                        "conflict",
                        f"The version has no calibration of its own for {slot.precision}, so without this "
                        "one it could not serve. Send pictures for another one instead.",
                    )
                path.unlink(missing_ok=True)
                return None
            # Under the lock: a version that is deleted must not leave a calibration behind.
            if not (self._models / category / version / bundle.MANIFEST).is_file():
                raise Problem("unknown-model", f"Version {version!r} of {category!r} was deleted.")
            try:
                found = _put_in_force(after, slot)
            except ValueError as error:  # a file that cannot be used would stop all decisions
                raise Problem(
                    "conflict", "Nothing is told apart in these images: their maps are flat. Take others."
                ) from error
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, after.model_dump_json().encode(), sync=True)
            self._files.put(path, found)
            return found

    def _path(self, slot: Slot) -> Path:
        manifest = slot.manifest
        return (
            models_folder.calibrations_folder(self._models / manifest.category / manifest.version) / slot.file
        )

    def _load(self, path: Path, slot: Slot) -> InForce | None:
        """Read a renewal for a slot's version and engine; for which station, the file itself says."""

        def parse(path: Path) -> InForce:
            renewal = Renewal.model_validate_json(read_file(path, _MAX_BYTES))
            own = replace(slot, station=renewal.station)
            if own.file != path.name:
                raise ValueError(f"{path} is a calibration of station {renewal.station!r}")
            return _put_in_force(renewal, own)

        return self._files.get(path, parse, self._models)


def or_own(detector: Detector, found: InForce | None) -> Calibrator:
    """Return the calibration of a renewal that was found, else that of the model's bundle.

    Raises:
        Problem: model-loading if the bundle has none for its engine: the renewal it was loaded with is gone.
    """
    if found is not None:
        return found.calibrator
    manifest, precision = detector.manifest, detector.scorer.precision
    if manifest.calibration_of(precision) is None:
        raise Problem(
            "model-loading",
            f"The calibration of {manifest.category!r} for {precision} is gone, and the version has none of "
            "its own, so no decision can be taken. `flowgauge calibrate` makes one.",
        )
    return detector.calibrator


def _put_in_force(renewal: Renewal, slot: Slot) -> InForce:
    """Validate a renewal and build its calibrator.

    Raises:
        ValueError: it is of another version, engine or station, or its statistics are of another backbone.
    """
    manifest = slot.manifest
    found = renewal.manifest_sha256, renewal.precision, renewal.station
    if found != (slot.sha256, slot.precision, slot.station):
        raise ValueError(f"it is a calibration of {found}")
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


def _unreadable(slot: Slot) -> Problem:
    whose = "all its stations" if slot.station is None else f"station {slot.station[:64]!r}"
    return Problem(
        "model-loading",
        f"The calibration of {slot.manifest.category!r} for {whose} cannot be read, so no decision can be "
        f"taken. Delete {slot.file} of version {slot.manifest.version!r}, and calibrate again or go back to "
        "the version's own.",
    )
