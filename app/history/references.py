"""What drift is told by: calibration images of active versions, and the inspections before the start."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from sqlalchemy import select

from app.category_settings import SETTINGS, CategorySettings
from app.database.engine import Database
from app.database.tables import inspections
from app.history.drift import Reference, Row
from app.problems import Problem
from flows.fastflow import bundle
from flows.fastflow.manifest import Calibration

logger = logging.getLogger("flowgauge.drift")


class References:
    """Reads the references of a models folder, each once.

    Args:
        models: the models folder.
        settings: gives those of a category, see `Store.settings`.
    """

    def __init__(self, models: Path, settings: Callable[[str], CategorySettings]) -> None:
        self._models = models
        self._settings = settings
        self._known: dict[str, Reference] = {}
        self._broken: set[str] = set()

    def __call__(self, category: str) -> Reference | None:
        """The reference of a category, None where no version is active or it cannot be read."""
        try:
            reference = self._read(category)
        except (Problem, OSError, bundle.BundleError) as error:
            if category not in self._broken:  # once, and not whenever metrics are read
                logger.warning("%s cannot be read: its drift is not watched (%s)", category, error)
            self._broken.add(category)
            return None
        self._broken.discard(category)
        return reference

    def categories(self) -> list[str]:
        """The categories that have models.

        Raises:
            OSError: the models folder cannot be read.
        """
        return bundle.categories(self._models)

    def _read(self, category: str) -> Reference | None:
        version = bundle.active_version(self._models, category)
        if version is None:
            return None
        settings = self._settings(category)
        regions = [region for region in (settings.region, *settings.stations.values()) if region]
        revisions = tuple(region.revision for region in regions)
        known = self._known.get(category)
        if known is None or (known.version, known.settings) != (version, revisions):
            calibration = bundle.read_manifest(self._models / category / version).calibration
            since_ms = _changed_ms(self._models / category)
            known = Reference(version, revisions, bool(regions), _samples(calibration), since_ms)
            self._known[category] = known
        return known


def _changed_ms(folder: Path) -> int:
    """When a category's folder or its settings were last changed.

    Whatever changes the active version or a region renames a file into the folder, or takes one away; an
    editor may write into the settings in their place.
    """
    times = [0]
    for path in (folder, folder / SETTINGS):
        with suppress(FileNotFoundError):
            times.append(path.stat().st_mtime_ns // 1_000_000)
    return max(times)


def _samples(calibration: Calibration) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    samples = {"score": np.sort(np.asarray(calibration.scores))}
    columns = np.asarray(calibration.statistics or []).T
    for i, column in enumerate(columns):
        samples[f"features of scale {i // 2}, {('mean', 'deviation')[i % 2]}"] = np.sort(column)
    return samples


def latest(database: Database, category: str, limit: int) -> Sequence[Row]:
    """The latest inspections of a category, oldest first: what `Drift` begins with."""
    columns = inspections.c
    query = select(columns.id, columns.version, columns.score, columns.features)
    query = query.where(columns.category == category).order_by(columns.id.desc()).limit(limit)
    with database.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()][::-1]
