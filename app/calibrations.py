"""Calibrations that were made after a version: of good pictures of the very line, or of one of its stations.

    models/<category>/calibrations/<version>/<precision>.json             for all stations
    models/<category>/calibrations/<version>/<precision>.<station>.json   for one: 16 digits of its name's
    sha256

Bundles never change, so what renews their thresholds lies beside them: of one version and one engine each,
because scores of others say nothing of theirs. A file is replaced atomically and read again when it has
changed. A station's own calibration goes before that of the line, and that before the bundle's.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from app.category_settings import locked
from app.problems import Problem
from app.renewals import InForce, Renewal, Slot, parse, put_in_force
from flows.fastflow import bundle, models_folder
from flows.fastflow.calibration import Calibrator
from flows.fastflow.detector import Detector
from flows.fastflow.manifest import PRECISIONS, Precision
from flows.fastflow.plain_files import replace_file, stamp_of, sweep

logger = logging.getLogger("flowgauge.calibrations")

MAX_STATIONS: Final = 256  # with a calibration of their own, of one version and engine


class CalibrationFiles:
    """The calibrations beside the bundles of a models folder. May be used from several threads at once."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._known: dict[Path, tuple[tuple[int, ...], InForce]] = {}
        self._broken: dict[Path, tuple[int, ...]] = {}
        self._change = threading.Lock()

    def get(self, detector: Detector, station: str | None = None) -> Calibrator:
        """The calibration in force for a model at a station; costs a look at one or two files' times.

        Raises:
            Problem: model-loading, if a file is there that cannot be read and never could: nothing is decided
                by other thresholds than those that were set; or as `or_own`.
        """
        return or_own(detector, self.find(Slot.of(detector, station)))

    def instead(self, folder: Path, precision: Precision) -> Calibrator | None:
        """The renewal for an engine that a bundle was not calibrated for; else, or without one, None.

        Raises:
            BundleError: the bundle cannot be read.
            Problem: as `get`.
        """
        manifest = bundle.read_manifest(folder)
        if manifest.calibration_of(precision) is not None:
            return None
        if not (self._models / manifest.category).is_dir():
            return None  # the bundle is the first of its category, and not in its place yet
        found = self.find(Slot(manifest, bundle.manifest_sha256(folder, manifest), precision))
        return None if found is None else found.calibrator

    def find(self, slot: Slot) -> InForce | None:
        """The renewal in force: the station's, else that of all others; None where the bundle's own is.

        Raises:
            Problem: as `get`.
        """
        own = self.read(slot)
        if own is None and slot.station is not None:
            return self.read(replace(slot, station=None))
        return own

    def read(self, slot: Slot) -> InForce | None:
        """The renewal for exactly this slot, if there is one.

        Raises:
            Problem: as `get`.
        """
        path = self._path(slot)
        known = self._known.get(path)
        if known is not None and known[1].renewal.manifest_sha256 != slot.sha256:
            known = None
        stamp: tuple[int, ...] = ()
        try:
            stamp = stamp_of(path, self._models / slot.manifest.category)
            if known is not None and known[0] == stamp:
                return known[1]
            in_force = put_in_force(parse(path), slot) if stamp else None
        except (OSError, ValueError) as error:
            self._complain(path, stamp, error)
            if known is not None:
                return known[1]
            raise Problem(
                "model-loading",
                f"The calibration of {slot.manifest.category!r} for {slot.whose} cannot be read, so "
                f"no decision can be taken. Delete {path.name} of version {slot.manifest.version!r}, and "
                "calibrate again or go back to the version's own.",
            ) from error
        self._broken.pop(path, None)
        if in_force is None:
            if self._known.pop(path, None) is not None:
                logger.warning("the calibration %s is gone", path)
            return None
        self._know(path, stamp, in_force)
        return in_force

    def expect_served(self, slot: Slot) -> None:
        """Refuse a station's own where its engine can serve the version by no calibration of the line.

        Raises:
            Problem: conflict; or as `get`.
        """
        if slot.station is None or slot.manifest.calibration_of(slot.precision) is not None:
            return
        if self.read(replace(slot, station=None)) is None:
            raise Problem(
                "conflict",
                f"Neither the version nor the line has a calibration for {slot.precision}, without which it "
                "serves no station. Make the line's first, without a station.",
            )

    def stations(self, slot: Slot) -> list[str]:
        """The stations that have a renewal of their own for the slot's version and engine, sorted.

        One that cannot be read any more is of the station that it was of; where nobody knows, see `nobodys`.
        """
        return sorted(station for station in self._stations(slot).values() if station is not None)

    def nobodys(self, slot: Slot) -> list[str]:
        """Names of files, sorted, that are a station's and do not tell whose: there nothing is decided."""
        return sorted(file for file, station in self._stations(slot).items() if station is None)

    def _stations(self, slot: Slot) -> dict[str, str | None]:
        """The stations that have a renewal of their own, by their files' names, which are digits."""
        found: dict[str, str | None] = {}
        for path in self._path(slot).parent.glob(f"{slot.precision}.*.json"):
            known = self._known.get(path)
            station = None if known is None else known[1].renewal.station
            stamp: tuple[int, ...] = ()
            try:
                stamp = stamp_of(path, self._models / slot.manifest.category)
                if not stamp:
                    continue  # removed just now
                if known is None or known[0] != stamp:
                    renewal = parse(path)
                    own = replace(slot, station=renewal.station)
                    if renewal.station is None or path.name != own.file:
                        raise ValueError(f"a calibration of {own.whose} was found")  # noqa: TRY301
                    station = renewal.station
                    # Who asks for the stations goes on to ask what is in force there.
                    self._know(path, stamp, put_in_force(renewal, own))
            except (OSError, ValueError) as error:
                self._complain(path, stamp, error)
            found[path.name] = station
        return found

    def precisions(self, slot: Slot) -> list[Precision]:
        """For engines of which precisions the slot's version has a renewal of the line."""
        line = replace(slot, station=None)
        return [one for one in PRECISIONS if self._path(replace(line, precision=one)).is_file()]

    def change(self, slot: Slot, edit: Callable[[InForce | None], Renewal | None]) -> InForce | None:
        """Replace a renewal or remove it.

        Args:
            slot: which.
            edit: gets what there is, None for nothing, and gives what is to be there, None for nothing; may
                raise to refuse.

        Raises:
            Problem: as `get`; conflict, if too many stations would have one, it could decide nothing, the
                version could not serve without it, or not with it alone, or another process has been changing
                the category for long; unknown-model, if the version was
                deleted meanwhile; or what `edit` raises.
        """
        path = self._path(slot)
        category, version = slot.manifest.category, slot.manifest.version
        with self._change, locked(self._models, category):
            after = edit(self.read(slot))
            if after is None:
                if slot.station is None and slot.manifest.calibration_of(slot.precision) is None:
                    raise Problem(
                        "conflict",
                        f"The version has no calibration of its own for {slot.precision}, so without this "
                        "one it could not serve. Send pictures for another one instead.",
                    )
                path.unlink(missing_ok=True)
            else:
                # Under the lock: what is deleted must not leave a calibration behind.
                if not (self._models / category / version / bundle.MANIFEST).is_file():
                    raise Problem("unknown-model", f"Version {version!r} of {category!r} was deleted.")
                path.parent.mkdir(parents=True, exist_ok=True)
                sweep(path.parent)
                others = sum(1 for _ in path.parent.glob(f"{slot.precision}.*.json"))
                if slot.station is not None and others >= MAX_STATIONS and not path.exists():
                    raise Problem("conflict", f"{MAX_STATIONS} stations have one of their own, the limit.")
                self.expect_served(slot)
                _expect_usable(after, slot)
                replace_file(path, after.model_dump_json().encode())
        return self.read(slot)

    def _path(self, slot: Slot) -> Path:
        manifest = slot.manifest
        return models_folder.renewals_of(self._models / manifest.category / manifest.version) / slot.file

    def _know(self, path: Path, stamp: tuple[int, ...], in_force: InForce) -> None:
        """Keep a renewal that was read, and of its category only those of its and of the active version."""
        if path not in self._known:
            category = in_force.renewal.category
            kept = {path.parent.name, models_folder.active_version(self._models, category)}
            for other in list(self._known):
                if other.parent.parent == path.parent.parent and other.parent.name not in kept:
                    self._known.pop(other, None)
        self._known[path] = stamp, in_force

    def _complain(self, path: Path, stamp: tuple[int, ...], error: Exception) -> None:
        if self._broken.get(path) != stamp:
            self._broken[path] = stamp
            logger.error("the calibration %s cannot be read", path, exc_info=error)


def or_own(detector: Detector, found: InForce | None) -> Calibrator:
    """The calibration of a renewal that was found, else that of the model's bundle.

    Raises:
        Problem: model-loading, if the bundle has none for its engine: the renewal it was loaded with is gone.
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


def _expect_usable(renewal: Renewal, slot: Slot) -> None:
    """What is written must decide: a file that cannot be used would stop all decisions."""
    try:
        put_in_force(renewal, slot)
    except ValueError as error:
        raise Problem(
            "conflict", "Nothing is told apart in these images: their maps are flat. Take others."
        ) from error
