"""What an operator has set for a category: rates, and the region of interest of each station.

models/<category>/settings.json is replaced atomically and read again when it has changed. It holds for every
version of the category: rates, not scores, so that thresholds stay certified when a version is replaced.
"""

import errno
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from app.problems import Problem
from app.schemas.body import Body
from flows.fastflow import models_folder, regions
from flows.fastflow.bundle import first_fault
from flows.fastflow.plain_files import read_file, replace_file, stamp_of

logger = logging.getLogger("flowgauge.settings")

SETTINGS: Final = "settings.json"
MAX_STATIONS: Final = 256
MAX_POINTS: Final = 2000  # of a region: more would make its mask slow, and the file large
_TAKES_NOTHING: Final = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
)
_MAX_BYTES = 16 * 2**20
_MASK_BYTES = 64 * 2**20  # of a category's masks; 256 stations at 512 px

Rate = Annotated[float, Field(gt=0, lt=1)]
Point = tuple[Annotated[float, Field(ge=0, le=65_535)], Annotated[float, Field(ge=0, le=65_535)]]
# Of thousands of corners that are none, one is told.
Polygon = Annotated[list[Point], Field(min_length=3, max_length=500, fail_fast=True)]


class _Record(Body):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class ImageSize(_Record):
    """Width and height of a picture in pixels."""

    width: int = Field(ge=1, le=65_535, examples=[900])
    height: int = Field(ge=1, le=65_535, examples=[900])


class Area(_Record):
    """Polygons in the pixels of a picture of a given size; what lies in any of them counts.

    Raises:
        ValidationError: a corner lies outside the picture, or a polygon encloses less than a pixel, also
            because it crosses itself.
    """

    image: ImageSize = Field(
        description="Size of the picture that the polygons were drawn on; they are scaled to others."
    )
    polygons: list[Polygon] = Field(
        min_length=1,
        max_length=64,
        fail_fast=True,
        description="Corners (x, y) of each polygon, in pixels from the upper left.",
        examples=[[[[100, 100], [800, 100], [800, 700], [100, 700]]]],
    )

    @model_validator(mode="after")
    def _expect_something_inside(self) -> Self:
        if sum(map(len, self.polygons)) > MAX_POINTS:
            raise ValueError(f"the polygons have more than {MAX_POINTS} corners together")
        for i, polygon in enumerate(self.polygons):
            if any(x > self.image.width or y > self.image.height for x, y in polygon):
                raise ValueError(f"polygon {i} reaches beyond the picture")
            if _area(polygon) < 1:
                if _crosses_itself(polygon):
                    raise ValueError(f"polygon {i} crosses itself; give its corners in the outline's order")
                raise ValueError(f"polygon {i} encloses less than a pixel")
        return self


class Region(Area):
    """A region of interest as stored."""

    revision: int = Field(ge=1, description="of the settings, when it was last changed")


class CategorySettings(_Record):
    """The settings of a category. Where there is no file: the bundle's own rate, no review band, all pixels.

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
    target_fpr: Rate | None = None
    review_fpr: Annotated[float, Field(ge=0, lt=1)] | None = None
    region: Region | None = None
    stations: dict[Annotated[str, Field(min_length=1, max_length=256)], Region] = Field(
        default={}, max_length=MAX_STATIONS
    )
    # Copies share this dictionary and may have other regions: a mask holds for the very region beside it.
    _masks: dict[tuple[str | None, tuple[int, int]], tuple[Region, NDArray[np.bool_]]] = PrivateAttr(
        default_factory=dict
    )

    def region_mask(self, station: str | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Which pixels of a map count.

        Args:
            station: as it came with the picture, or None.
            size: (height, width).

        Returns:
            (height, width), True where a pixel counts, at least once, not writeable; None where all count.

        Raises:
            Problem: model-loading, if no pixel of this size lies inside the region: every part would pass.
        """
        whose, region = self.region_of(station)
        if region is None:
            return None
        known = self._known_mask(whose, region, size)
        if known is None:
            known = _mask(region, size)
            self._masks[whose, size] = region, known
            self._forget_masks()
        return known

    def known_region_mask(self, station: str | None, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """The same at once, where it was made before; None where it was not, or where all pixels count."""
        whose, region = self.region_of(station)
        return None if region is None else self._known_mask(whose, region, size)

    def _known_mask(
        self, whose: str | None, region: Region, size: tuple[int, int]
    ) -> NDArray[np.bool_] | None:
        known = self._masks.get((whose, size))
        return None if known is None or known[0] is not region else known[1]

    def _forget_masks(self) -> None:
        """Keep the latest masks alone, where pictures of many sizes make many."""
        masks = list(self._masks.items())
        total = sum(mask.nbytes for _, (_, mask) in masks)
        for key, (_, mask) in masks[:-1]:
            if total <= _MASK_BYTES:
                break
            self._masks.pop(key, None)  # another thread may have been faster
            total -= mask.nbytes

    def region_of(self, station: str | None) -> tuple[str | None, Region | None]:
        """The region of interest in force at a station, and whose it is: None for that of all others."""
        own = self.stations.get(station) if station is not None else None
        return (None, self.region) if own is None else (station, own)


class SettingsFiles:
    """The settings of a models folder's categories. May be used from several threads at once."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._known: dict[str, tuple[tuple[int, ...], CategorySettings]] = {}
        self._broken: dict[str, tuple[int, ...]] = {}
        self._change = threading.Lock()

    def get(self, category: str) -> CategorySettings:
        """The settings of a category; costs a look at the file's times as long as it stays the same.

        A file that cannot be read is never taken for no settings, which would decide by other thresholds than
        were set: those read before stay in force, and the log says so.

        Raises:
            Problem: unknown-model, if it cannot be a category; model-loading, if the settings cannot be read
                and never could.
        """
        known = self._known.get(category)
        if known is None and not models_folder.is_category(category):
            raise _unknown(category)
        path = self._models / category / SETTINGS
        stamp: tuple[int, ...] = ()
        try:
            stamp = stamp_of(path, path.parent)
            if known is not None and known[0] == stamp:
                return known[1]
            settings = _read(path) if stamp else CategorySettings()
        except (OSError, ValueError) as error:
            if known is None and self._models.is_dir() and not path.parent.exists():
                raise _unknown(category) from error
            self._complain(category, stamp, error)
            if known is not None:
                return known[1]
            raise _unreadable(category, "no decision can be taken") from error
        if known is not None and not stamp:
            logger.warning("the settings of %s are gone: the bundle's own rates apply", category)
        self._broken.pop(category, None)
        self._known[category] = stamp, settings
        return settings

    def change(self, category: str, edit: Callable[[CategorySettings], CategorySettings]) -> CategorySettings:
        """Replace the settings of a category by an edited copy, under the next revision.

        Args:
            category: one that has a folder.
            edit: gets the settings with the new revision already counted; may raise to refuse.

        Raises:
            Problem: as `get`; conflict, if another process has been changing the category for long; or what
                `edit` raises.
        """
        path = self._models / category / SETTINGS
        if not models_folder.is_category(category) or not path.parent.is_dir():
            raise _unknown(category)
        with self._change, locked(self._models, category):
            # What `get` remembers may be older than the file: other threads look at it without the lock, and
            # two files written within a tick of the clock can have one stamp.
            try:
                before = _read(path) if stamp_of(path, path.parent) else CategorySettings()
            except (OSError, ValueError) as error:
                self._complain(category, (), error)
                raise _unreadable(category, "nothing was changed") from error
            after = edit(before.model_copy(update={"revision": before.revision + 1}))
            after = CategorySettings.model_validate(after.model_dump())
            data = after.model_dump_json().encode()
            if len(data) > _MAX_BYTES:  # what is written must be readable
                raise Problem(
                    "conflict",
                    f"The settings of {category!r} would be too large; remove regions of stations.",
                )
            replace_file(path, data)
            # To stay in force even if the file is damaged next.
            self._known[category] = stamp_of(path, path.parent), after
        return after

    def _complain(self, category: str, stamp: tuple[int, ...], error: Exception) -> None:
        if self._broken.get(category) != stamp:
            self._broken[category] = stamp
            logger.error("the settings of %s cannot be read; those before stay", category, exc_info=error)


@contextmanager
def locked(models: Path, category: str) -> Iterator[None]:
    """Hold a category against other processes that change it too.

    Raises:
        Problem: conflict, if another one has held it for long.
    """
    with telling_conflicts(), models_folder.locked(models, category):
        yield


@contextmanager
def telling_conflicts() -> Iterator[None]:
    """Tell what keeps a category from being changed as the service tells it.

    Raises:
        Problem: conflict: another one changes it, or its disk takes nothing.
    """
    try:
        yield
    except models_folder.ConflictError as error:
        raise Problem("conflict", str(error)) from error
    except OSError as error:
        if error.errno not in _TAKES_NOTHING:
            raise
        logger.exception("the models folder takes nothing")
        raise Problem(
            "conflict",
            "The models folder takes nothing: its disk is full, or may not be written to. Nothing was "
            "changed.",
        ) from error


def _unknown(category: str) -> Problem:
    return Problem("unknown-model", f"There is no model of category {category[:64]!r}.")


def _unreadable(category: str, consequence: str) -> Problem:
    return Problem(
        "model-loading",
        f"The settings of {category!r} are damaged or cannot be read, so {consequence}. "
        f"Restore its {SETTINGS}, or delete the file to go back to the rates of the bundle.",
    )


def _read(path: Path) -> CategorySettings:
    data = read_file(path, _MAX_BYTES)
    try:
        return CategorySettings.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(f"{path} is not valid: {first_fault(error)}") from error


def _area(polygon: list[Point]) -> float:
    """The shoelace formula; a polygon that crosses itself may enclose nothing by it."""
    turned = [*polygon[1:], polygon[0]]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(polygon, turned, strict=True))) / 2


def _crosses_itself(polygon: list[Point]) -> bool:
    """Whether two of its sides cross, each with its ends on both sides of the other."""
    start = np.array(polygon)  # (n, 2)
    side = np.roll(start, -1, axis=0) - start
    to = start[None, :] - start[:, None]  # (n, n, 2): from where side i starts to each corner j
    beside = (
        side[:, None, 0] * to[..., 1] - side[:, None, 1] * to[..., 0]
    )  # (n, n): its sign says where j lies
    parted = beside * np.roll(beside, -1, axis=1) < 0  # (n, n): side j has an end on both sides of line i
    return bool((parted & parted.T).any())


def _mask(region: Region, size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        mask = regions.mask(region.polygons, (region.image.height, region.image.width), size)
    except ValueError as error:
        raise Problem(
            "model-loading",
            f"No pixel of the map, {size[1]} x {size[0]}, lies inside the region of interest, so "
            "every part would pass. Set a larger region.",
        ) from error
    mask.setflags(write=False)
    return mask
