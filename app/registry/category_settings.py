"""Settings of a category: false-reject rates, and the region of interest of each station.

models/<category>/settings.json holds for every version of the category. It stores rates instead of scores, so
that thresholds stay certified for a new version.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from app.errors.problems import Problem
from app.registry.catalogue import as_problems, unknown_model_problem
from app.registry.file_cache import DamagedFileError, FileCache
from app.schemas.tuning import Area, AuditShare, FalseRejectRate, StoredSettings
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.models_folder import Changing
from flows.fastflow.files.plain_files import read_file
from flows.fastflow.imaging import region_masks

SETTINGS: Final = "settings.json"
_MAX_BYTES: Final = 64 * 2**20
_MAX_MASKS: Final = 64  # per region; 16 MiB at 512 px


class StoredRegion(Area):
    revision: int = Field(ge=1, description="of the settings, when it was last changed")
    _masks: dict[tuple[int, int], NDArray[np.bool_]] = PrivateAttr(default_factory=dict)

    def known_mask(self, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return the cached `mask` of this size, or None."""
        return self._masks.get(size)

    def mask(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the mask of pixels that count on a map: (height, width) bool, read-only.

        Raises:
            Problem: model-loading if no pixel lies inside the region, because every part would pass.
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
        if len(self._masks) >= _MAX_MASKS:  # images of many sizes
            self._masks.clear()
        self._masks[size] = mask
        return mask


class CategorySettings(StoredSettings):
    """The settings of a category; the defaults are the bundle's rates and all pixels.

    Attributes:
        revision: number of changes of the settings.
        rates_revision: revision of the last change of the rates.
        target_fpr: share of good parts that may be rejected; None for the bundle's rate.
        review_fpr: share of good parts that may be rejected or sent to review; 0 for no review band, None for
            the bundle's rate.
        audit_share: share of inspections drawn for review; None for the server's.
        region: region of interest of stations without their own.
        stations: region of interest by station.
    """

    revision: int = Field(default=0, ge=0)
    rates_revision: int = Field(default=0, ge=0)
    target_fpr: FalseRejectRate | None = None
    review_fpr: Annotated[float, Field(ge=0, lt=1)] | None = None
    audit_share: AuditShare | None = None
    region: StoredRegion | None = None
    stations: dict[Annotated[str, Field(min_length=1, max_length=256)], StoredRegion] = Field(default={})

    def region_mask(self, station: str | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Return the mask of pixels that count at a station, see `StoredRegion.mask`; None for all."""
        _, region = self.region_of(station)
        return None if region is None else region.mask(size)

    def region_of(self, station: str | None) -> tuple[str | None, StoredRegion | None]:
        """Return the station that owns the region of interest in force (None: all others), and the region."""
        own = self.stations.get(station) if station is not None else None
        return (None, self.region) if own is None else (station, own)


class SettingsFiles:
    """The settings of a models folder's categories. Thread-safe.

    Args:
        changing: locks a category; None for `models_folder.lock_category`.
    """

    def __init__(self, models: Path, changing: Changing | None = None) -> None:
        self._models = models
        self._changing = changing or partial(models_folder.lock_category, models)
        self._files: FileCache[CategorySettings] = FileCache()

    def get(self, category: str) -> CategorySettings:
        """Return the settings of a category.

        A damaged file does not mean default settings, which would change the thresholds. The last good
        settings stay in force, and the damage is logged.

        Raises:
            Problem: unknown-model; model-loading if the settings are unreadable from the start.
        """
        path = self._path(category)
        try:
            return self._files.get(path, _read, path.parent) or CategorySettings()
        except DamagedFileError as error:
            if self._models.is_dir() and not path.parent.exists():
                raise unknown_model_problem(self._models, category, None) from error
            raise _unreadable(category, "no decision can be taken") from error

    def change(self, category: str, edit: Callable[[CategorySettings], CategorySettings]) -> CategorySettings:
        """Replace the settings of a category by an edited copy with the next revision.

        Raises:
            Problem: as `get`; conflict if another process holds the category's lock; or what `edit` raises.
        """
        path = self._path(category)
        if not path.parent.is_dir():
            raise unknown_model_problem(self._models, category, None)
        with as_problems(self._models, category), self._changing(category) as write:
            try:
                before = _read(path) if path.exists() else CategorySettings()
            except (OSError, ValueError) as error:
                raise _unreadable(category, "nothing was changed") from error
            after = edit(before.model_copy(update={"revision": before.revision + 1}))
            after = CategorySettings.model_validate(after.model_dump())
            write(path, after.model_dump_json().encode())
        return after

    def _path(self, category: str) -> Path:
        if not models_folder.is_category(category):
            raise unknown_model_problem(self._models, category, None)
        return self._models / category / SETTINGS


def _unreadable(category: str, consequence: str) -> Problem:
    return Problem(
        "model-loading",
        f"The settings of {category!r} are damaged or cannot be read, so {consequence}. "
        f"Restore its {SETTINGS}, or delete the file to go back to the rates of the bundle.",
    )


def _read(path: Path) -> CategorySettings:
    return CategorySettings.model_validate_json(read_file(path, _MAX_BYTES))
