"""The settings of a category: false-reject rates, and the region of interest of each station.

models/<category>/settings.json holds for every version of the category: rates, not scores, so that thresholds
stay certified when a version is replaced.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from app.errors.problems import Problem
from app.registry.catalogue import problems_of, unknown_model
from app.registry.file_cache import DamagedFileError, FileCache
from app.schemas.tuning import Area, FalseRejectRate, StoredSettings
from flows.fastflow.bundle import models_folder
from flows.fastflow.files.atomic_files import replace_file
from flows.fastflow.files.plain_files import read_file
from flows.fastflow.imaging import region_masks

SETTINGS: Final = "settings.json"
_MAX_BYTES: Final = 64 * 2**20
_MAX_MASKS: Final = 64  # of a region; 16 MiB at 512 px


class Region(Area):
    """A region of interest as stored."""

    revision: int = Field(ge=1, description="of the settings, when it was last changed")
    _masks: dict[tuple[int, int], NDArray[np.bool_]] = PrivateAttr(default_factory=dict)

    def known_mask(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return `mask` at once where it was made before, else None."""
        return self._masks.get(size)

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return which pixels of a map of a size count: (height, width) bool, at least once True, read-only.

        Raises:
            Problem: model-loading if no pixel of this size lies inside the region: every part would pass.
        """
        if (known := self.known_mask(size)) is not None:
            return known
        try:
            mask = region_masks.polygon_mask(self.polygons, (self.image.height, self.image.width), size)
        except ValueError as error:
            raise Problem(
                "model-loading",
                f"No pixel of the map, {size[1]} x {size[0]}, lies inside the region of interest, so "
                "every part would pass. Set a larger region.",
            ) from error
        mask.setflags(write=False)
        if len(self._masks) >= _MAX_MASKS:  # images of many sizes make many
            self._masks.clear()
        self._masks[size] = mask
        return mask


class CategorySettings(StoredSettings):
    """The settings of a category. Without a file: the bundle's own rates, all pixels.

    Attributes:
        revision: counts every change of the settings.
        rates_revision: the revision at which the rates were last changed.
        target_fpr: share of good parts that may be rejected; None for the rate that the bundle was made with.
        review_fpr: share of good parts that may be rejected or sent to a person; 0 for no review band, None
            for what the bundle was made with.
        region: of stations that have none of their own.
        stations: region of interest by station.
    """

    revision: int = Field(default=0, ge=0)
    rates_revision: int = Field(default=0, ge=0)
    target_fpr: FalseRejectRate | None = None
    review_fpr: Annotated[float, Field(ge=0, lt=1)] | None = None
    region: Region | None = None
    stations: dict[Annotated[str, Field(min_length=1, max_length=256)], Region] = Field(default={})

    def region_mask(self, station: str | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return which pixels of a map count at a station, see `Region.mask`; None where all count."""
        _, region = self.region_of(station)
        return None if region is None else region.mask(size)

    def region_of(self, station: str | None) -> tuple[str | None, Region | None]:
        """Return the region of interest in force at a station, and its owner: None for that of all others."""
        own = self.stations.get(station) if station is not None else None
        return (None, self.region) if own is None else (station, own)


class SettingsFiles:
    """The settings of a models folder's categories. Safe to use from several threads."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._files: FileCache[CategorySettings] = FileCache()

    def get(self, category: str) -> CategorySettings:
        """Return the settings of a category.

        A damaged file never counts as no settings, which would decide by other thresholds than were set:
        those read before stay in force, and the log says so.

        Raises:
            Problem: unknown-model; model-loading if the settings cannot be read and never could.
        """
        path = self._path(category)
        try:
            return self._files.get(path, _read, path.parent) or CategorySettings()
        except DamagedFileError as error:
            if self._models.is_dir() and not path.parent.exists():
                raise unknown_model(self._models, category, None) from error
            raise _unreadable(category, "no decision can be taken") from error

    def change(self, category: str, edit: Callable[[CategorySettings], CategorySettings]) -> CategorySettings:
        """Replace the settings of a category by an edited copy, under the next revision.

        Args:
            category: one that has a folder.
            edit: receives the settings with the new revision already counted; may raise to refuse.

        Raises:
            Problem: as `get`; conflict if another process has been changing the category for long; or what
                `edit` raises.
        """
        path = self._path(category)
        if not path.parent.is_dir():
            raise unknown_model(self._models, category, None)
        with problems_of(self._models, category), models_folder.lock_category(self._models, category):
            try:
                before = _read(path) if path.exists() else CategorySettings()
            except (OSError, ValueError) as error:
                raise _unreadable(category, "nothing was changed") from error
            after = edit(before.model_copy(update={"revision": before.revision + 1}))
            after = CategorySettings.model_validate(after.model_dump())
            replace_file(path, after.model_dump_json().encode(), sync=True)
            self._files.put(path, after)
        return after

    def _path(self, category: str) -> Path:
        if not models_folder.is_category(category):
            raise unknown_model(self._models, category, None)
        return self._models / category / SETTINGS


def _unreadable(category: str, consequence: str) -> Problem:
    return Problem(
        "model-loading",
        f"The settings of {category!r} are damaged or cannot be read, so {consequence}. "
        f"Restore its {SETTINGS}, or delete the file to go back to the rates of the bundle.",
    )


def _read(path: Path) -> CategorySettings:
    return CategorySettings.model_validate_json(read_file(path, _MAX_BYTES))
