"""Calibrations made after a version, with good images of the line or of one station.

    models/<category>/calibrations/<version>/<precision>.json             for all stations
    models/<category>/calibrations/<version>/<precision>.<station>.json   for one station; <station> is 16
    digits of the SHA-256 of its name

Bundles never change, so a new calibration is stored beside its bundle. It holds for one version and one
engine, because scores of others differ. A station's own calibration precedes that of the line, which precedes
that of the bundle.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from app.errors.problems import Problem
from app.registry.catalogue import as_problems
from app.registry.file_cache import DamagedFileError, FileCache
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.bundle.models_folder import Changing
from flows.fastflow.calibration.calibrator import Calibrator
from flows.fastflow.detector import Detector
from flows.fastflow.files.plain_files import read_file
from flows.fastflow.manifest import Calibration, Manifest, Precision, Sha256

_MAX_BYTES: Final = 64 * 2**20


class StoredCalibration(BaseModel):
    """A calibration as stored in a file.

    Attributes:
        manifest_sha256: identifies the version, so that no other of the same name uses the calibration.
        station: its station; None for all without their own calibration.
        pictures: `fingerprint` of the images.
        target_fpr: rate of the pixel threshold, and the default rate of the others.
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
class CalibrationTarget:
    """The target of a calibration: a version, an engine, and a station or None for the line."""

    manifest: Manifest
    sha256: str
    precision: Precision
    station: str | None = None

    @classmethod
    def of(cls, detector: Detector, station: str | None = None) -> Self:
        return cls(detector.manifest, detector.sha256, detector.scorer.precision, station)

    @property
    def file(self) -> str:
        """The file's name; it uses a hash, because a station's name may have any characters."""
        if self.station is None:
            return f"{self.precision}.json"
        return f"{self.precision}.{hashlib.sha256(self.station.encode()).hexdigest()[:16]}.json"


class ActiveCalibration(NamedTuple):
    """A stored calibration and its calibrator."""

    stored: StoredCalibration
    calibrator: Calibrator


class CalibrationFiles:
    """The calibrations beside the bundles of a models folder. Thread-safe.

    All methods except `stations` raise the problem model-loading if a file is unreadable from the start: no
    decision may use other thresholds than the set ones.

    Args:
        changing: locks a category; None for `models_folder.lock_category`.
    """

    def __init__(self, models: Path, changing: Changing | None = None) -> None:
        self._models = models
        self._changing = changing or partial(models_folder.lock_category, models)
        self._files: FileCache[ActiveCalibration] = FileCache()

    def get(self, detector: Detector, station: str | None = None) -> Calibrator:
        """Return the calibration in force for a model at a station; raises as `choose_calibrator`."""
        return choose_calibrator(detector, self.find(CalibrationTarget.of(detector, station)))

    def fallback(self, folder: Path, precision: Precision) -> Calibrator | None:
        """Return the line's calibration for a precision that a bundle was not calibrated for, else None.

        Raises:
            BundleError: the bundle cannot be read.
        """
        manifest = bundle.read_manifest(folder)
        if manifest.calibration_of(precision) is not None:
            return None
        found = self.read(CalibrationTarget(manifest, bundle.manifest_sha256(folder, manifest), precision))
        return None if found is None else found.calibrator

    def find(self, target: CalibrationTarget) -> ActiveCalibration | None:
        """Return the station's calibration, else the line's; None if the bundle's own is in force."""
        if target.station is None:
            return self.read(target)
        return self.read(target) or self.read(replace(target, station=None))

    def read(self, target: CalibrationTarget) -> ActiveCalibration | None:
        """Return the calibration for exactly this target, or None."""
        try:
            found = self._load(self._path(target), target)
        except DamagedFileError as error:
            raise _unreadable(target) from error
        # Another bundle of the same name may have replaced the version.
        if found is not None and found.stored.manifest_sha256 != target.sha256:
            raise _unreadable(target)
        return found

    def stations(self, target: CalibrationTarget) -> list[str]:
        """Return the stations with their own calibration for the target's version and engine, sorted.

        Unreadable files are skipped; decisions at their stations raise the problem.
        """
        found = []
        for path in self._path(target).parent.glob(f"{target.precision}.*.json"):
            with suppress(DamagedFileError):
                active = self._load(path, target)
                if active is not None and active.stored.station is not None:
                    found.append(active.stored.station)
        return sorted(found)

    def change(
        self, target: CalibrationTarget, edit: Callable[[ActiveCalibration | None], StoredCalibration | None]
    ) -> ActiveCalibration | None:
        """Replace or remove a calibration.

        Args:
            edit: gets the current calibration or None, and returns the new one or None to remove it; may
                raise to refuse.

        Raises:
            Problem: conflict if the new calibration is unusable, the version cannot serve without the old
                one, or another process holds the category's lock; unknown-model if the version was deleted
                meanwhile; or what `edit` raises.
        """
        path = self._path(target)
        category, version = target.manifest.category, target.manifest.version
        with as_problems(self._models, category), self._changing(category) as write:
            after = edit(self.read(target))
            if after is None:
                if target.station is None and target.manifest.calibration_of(target.precision) is None:
                    raise Problem(
                        "conflict",
                        f"The version has no calibration of its own for {target.precision} and cannot serve "
                        "without this one. Send images for a new one instead.",
                    )
                write(path, None)
                return None
            # Under the lock: a deleted version must not leave a calibration behind.
            if not (self._models / category / version / bundle.MANIFEST).is_file():
                raise Problem("unknown-model", f"Version {version!r} of {category!r} was deleted.")
            try:
                found = _activate(after, target)
            except ValueError as error:  # an unusable file would stop all decisions
                raise Problem(
                    "conflict", "The maps of these images are flat, so no threshold exists. Use other images."
                ) from error
            write(path, after.model_dump_json().encode())
            return found

    def _path(self, target: CalibrationTarget) -> Path:
        manifest = target.manifest
        return (
            models_folder.calibrations_folder(self._models / manifest.category / manifest.version)
            / target.file
        )

    def _load(self, path: Path, target: CalibrationTarget) -> ActiveCalibration | None:
        """Read a calibration of a target's version and engine; its station is in the file."""

        def parse(path: Path) -> ActiveCalibration:
            stored = StoredCalibration.model_validate_json(read_file(path, _MAX_BYTES))
            own = replace(target, station=stored.station)
            if own.file != path.name:
                raise ValueError(f"{path} holds a calibration of station {stored.station!r}")
            return _activate(stored, own)

        return self._files.get(path, parse, self._models)


def choose_calibrator(detector: Detector, found: ActiveCalibration | None) -> Calibrator:
    """Return the calibrator of a stored calibration, else that of the model's bundle.

    Raises:
        Problem: model-loading if the bundle has none for its engine and the stored calibration is gone.
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


def _activate(stored: StoredCalibration, target: CalibrationTarget) -> ActiveCalibration:
    """Validate a stored calibration and build its calibrator.

    Raises:
        ValueError: it is of another version, engine, station or backbone.
    """
    manifest = target.manifest
    found = stored.manifest_sha256, stored.precision, stored.station
    if found != (target.sha256, target.precision, target.station):
        raise ValueError(f"it is a calibration of {found}")
    if not stored.calibration.statistics_fit(len(manifest.backbone.out_indices)):
        raise ValueError("its statistics are of another backbone")
    calibrator = Calibrator(
        stored.calibration,
        stored.target_fpr,
        manifest.review_fpr,
        source="line" if target.station is None else "station",
        identifier=hashlib.sha256(stored.model_dump_json().encode()).hexdigest()[:12],
    )
    return ActiveCalibration(stored, calibrator)


def _unreadable(target: CalibrationTarget) -> Problem:
    stations = "all its stations" if target.station is None else f"station {target.station[:64]!r}"
    return Problem(
        "model-loading",
        f"The calibration of {target.manifest.category!r} for {stations} cannot be read, so no decision can "
        f"be taken. Delete {target.file} of version {target.manifest.version!r}, then calibrate again or use "
        "the version's own calibration.",
    )
