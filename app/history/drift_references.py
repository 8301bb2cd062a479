"""What drift is told by: calibration images of versions that serve, and the inspections before the start."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from sqlalchemy import select

from app.database.clock import now_ms
from app.database.engine import Database
from app.database.tables import inspections
from app.errors.problems import Problem
from app.history.drift import DriftReference, Row
from app.registry.calibrations import CalibrationFiles, Slot
from app.registry.category_settings import SETTINGS, CategorySettings
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.manifest import Calibration, Precision

logger = logging.getLogger("flowgauge.drift")

# Those that were not made at some stations are looked for among so many windows of a category's latest.
_WINDOWS: Final = 20


class DriftReferences:
    """Reads the references of a models folder, each once.

    Args:
        models: the models folder.
        settings: of a category.
        precision: of the engine that serves.
        serving: the version that answers for a category; None where the active one will.
        calibrations: those beside the bundles.
    """

    def __init__(
        self,
        models: Path,
        settings: Callable[[str], CategorySettings],
        precision: Precision,
        serving: Callable[[str], str | None],
        calibrations: CalibrationFiles,
    ) -> None:
        self._models = models
        self._settings = settings
        self._precision = precision
        self._serving = serving
        self._calibrations = calibrations
        self._slots: dict[str, Slot] = {}
        self._known: dict[tuple[str, str | None], DriftReference] = {}
        self._broken: set[str] = set()

    def __call__(self, category: str, station: str | None = None) -> DriftReference | None:
        """The reference of a category's station: the calibration in force there.

        None where no version is active, or something cannot be read.
        """
        try:
            reference = self._read(category, station)
        except (Problem, OSError, bundle.BundleError) as error:
            if category not in self._broken:  # once, and not whenever metrics are read
                logger.warning("%s cannot be read: its drift is not watched (%s)", category, error)
            self._broken.add(category)
            return None
        self._broken.discard(category)
        return reference

    def categories(self) -> list[str]:
        """The categories that have models."""
        return models_folder.categories(self._models)

    def stations(self, category: str) -> list[str]:
        """The stations of a category that have a calibration of their own for the version that serves."""
        # Which version that is, it finds out.
        slot = None if self(category) is None else self._slots.get(category)
        return [] if slot is None else self._calibrations.stations(slot)

    def _read(self, category: str, station: str | None) -> DriftReference | None:
        version = models_folder.active_version(self._models, category)
        if version is None:
            return None
        version = self._serving(category) or version
        settings = self._settings(category)
        regions = [region for region in (settings.region, *settings.stations.values()) if region]
        revisions = tuple(region.revision for region in regions)
        slot = self._slots.get(category)
        if slot is None or slot.manifest.version != version:
            folder = self._models / category / version
            manifest = bundle.read_manifest(folder)
            slot = self._slots[category] = Slot(
                manifest, bundle.manifest_sha256(folder, manifest), self._precision
            )
        found = self._calibrations.find(replace(slot, station=station))
        calibration = found.renewal.calibration if found else slot.manifest.calibration_of(self._precision)
        if calibration is None:
            return None
        whose = found.renewal.station if found else None
        made = revisions, found.calibrator.identifier if found else None
        known = self._known.get((category, whose))
        if known is None or (known.version, known.settings) != (version, made):
            since_ms = self._unchanged_since_ms(category, version)
            known = self._known[category, whose] = DriftReference(
                version, made, bool(regions), sorted_statistics(calibration), since_ms, whose, self._precision
            )
        return known

    def _unchanged_since_ms(self, category: str, version: str) -> int:
        """Since when version, settings and calibrations may have been as they are, by their files' times."""
        folder = self._models / category
        renewals = models_folder.calibrations_folder(folder / version)  # it changes with every file in it
        files = (folder / models_folder.ACTIVE, folder / SETTINGS, renewals)
        changed = max(path.stat().st_mtime_ns for path in files if path.exists())
        return min(changed // 1_000_000, now_ms())


def sorted_statistics(calibration: Calibration) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """What a calibration knows of its pictures, by the name of the statistic, each sorted."""
    found = {"score": np.sort(np.asarray(calibration.scores))}
    columns = np.asarray(calibration.statistics or []).T
    for i, column in enumerate(columns):
        found[f"features of scale {i // 2}, {('mean', 'deviation')[i % 2]}"] = np.sort(column)
    return found


def load_latest_inspections(
    database: Database, category: str, limit: int, station: str | None, without: Sequence[str], first: str
) -> Sequence[Row]:
    """The latest inspections of a category, oldest first: what `Drift` begins with.

    Args:
        database: the history's.
        category: of the inspections.
        limit: how many, at most.
        station: where they were made; None for anywhere but `without`.
        without: stations. They are left out of the category's latest `limit` times 20, so where nearly all
            are made there, fewer are found than there may be.
        first: the id from which on they are wanted.
    """
    columns = inspections.c
    wanted = [columns[name] for name in ("id", "version", "precision", "score", "features", "station")]
    query = select(*wanted).where(columns.category == category, columns.id >= first)
    if station is not None:
        query = query.where(columns.station == station)
    # Looking for rows that are rare, or that there are not, must not read the whole history, for filing waits
    # meanwhile: so others are left out of some that were read.
    query = query.order_by(columns.id.desc()).limit(limit * _WINDOWS if without else limit)
    with database.read() as connection:
        found = [dict(row) for row in connection.execute(query).mappings()]
    return [row for row in found if row["station"] not in without][:limit][::-1]
