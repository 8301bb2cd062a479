"""Inputs of drift monitoring: calibration statistics of serving versions, and earlier inspections."""

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
from app.registry.calibrations import CalibrationFiles, CalibrationTarget
from app.registry.category_settings import SETTINGS, CategorySettings
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.manifest import Calibration, Precision

logger = logging.getLogger("flowgauge.drift")

# Inspections of other stations are searched among this many windows of a category's latest.
_WINDOWS: Final = 20


class DriftReferences:
    """Reads and caches the drift references of a models folder.

    Args:
        settings: returns the settings of a category.
        precision: precision of the serving engine.
        serving: returns the serving version of a category; None before the active version is loaded.
        calibrations: calibrations stored beside the bundles.
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
        self._slots: dict[str, CalibrationTarget] = {}
        self._known: dict[tuple[str, str | None], DriftReference] = {}
        self._broken: set[str] = set()

    def __call__(self, category: str, station: str | None = None) -> DriftReference | None:
        """Return the reference of a station: its calibration in force.

        None if no version is active or a file cannot be read.
        """
        try:
            reference = self._read(category, station)
        except (Problem, OSError, bundle.BundleError) as error:
            if category not in self._broken:  # once, not at every read of the metrics
                logger.warning("%s cannot be read: its drift is not watched (%s)", category, error)
            self._broken.add(category)
            return None
        self._broken.discard(category)
        return reference

    def categories(self) -> list[str]:
        return models_folder.categories(self._models)

    def stations(self, category: str) -> list[str]:
        """Return the stations with their own calibration for the serving version."""
        # The call finds the serving version.
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
            slot = self._slots[category] = CalibrationTarget(
                manifest, bundle.manifest_sha256(folder, manifest), self._precision
            )
        found = self._calibrations.find(replace(slot, station=station))
        calibration = found.stored.calibration if found else slot.manifest.calibration_of(self._precision)
        if calibration is None:
            return None
        owner = found.stored.station if found else None
        made = revisions, found.calibrator.identifier if found else None
        known = self._known.get((category, owner))
        if known is None or (known.version, known.settings) != (version, made):
            since_ms = self._unchanged_since_ms(category, version)
            known = self._known[category, owner] = DriftReference(
                version, made, bool(regions), sorted_statistics(calibration), since_ms, owner, self._precision
            )
        return known

    def _unchanged_since_ms(self, category: str, version: str) -> int:
        """Return the last change of version, settings or calibrations, by the times of their files."""
        folder = self._models / category
        calibrations = models_folder.calibrations_folder(folder / version)
        files = (folder / models_folder.ACTIVE, folder / SETTINGS, calibrations)
        changed = max(path.stat().st_mtime_ns for path in files if path.exists())
        return min(changed // 1_000_000, now_ms())


def sorted_statistics(calibration: Calibration) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Return the values of the calibration images by statistic, each sorted."""
    found = {"score": np.sort(np.asarray(calibration.scores))}
    columns = np.asarray(calibration.statistics or []).T
    for i, column in enumerate(columns):
        found[f"features of scale {i // 2}, {('mean', 'deviation')[i % 2]}"] = np.sort(column)
    return found


def load_latest_inspections(
    database: Database, category: str, limit: int, station: str | None, without: Sequence[str], first: str
) -> Sequence[Row]:
    """Load the latest inspections of a category, oldest first, to fill a drift window.

    Args:
        station: their station; None for all except `without`.
        without: excluded stations. They are removed from the category's latest 20 * `limit` inspections, so
            fewer than `limit` may be found.
        first: smallest id.
    """
    columns = inspections.c
    selected = [columns[name] for name in ("id", "version", "precision", "score", "features", "station")]
    query = select(*selected).where(columns.category == category, columns.id >= first)
    if station is not None:
        query = query.where(columns.station == station)
    # A search for rare rows must not read the whole history, because the writer waits meanwhile. So excluded
    # stations are removed from a limited number of rows.
    query = query.order_by(columns.id.desc()).limit(limit * _WINDOWS if without else limit)
    with database.read() as connection:
        found = [dict(row) for row in connection.execute(query).mappings()]
    return [row for row in found if row["station"] not in without][:limit][::-1]
