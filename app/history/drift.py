"""Drift: whether what is inspected still looks like what a model was calibrated on.

The latest inspections by the version of a category that serves, and apart from them those of every station
that has a calibration of its own, are compared with the calibration images by the two-sample
Kolmogorov-Smirnov statistic: their scores, and the mean and the deviation of the features of every
scale. Twenty times per window there is a look. Every look at every statistic is held to 0.01 divided by their
number (Bonferroni); so as long as inspected parts are exchangeable with the calibration images, the chance of
an alarm within any one window is at most 1 %. Parts that resemble the ones just before them, by batches of
material, say, are not exchangeable and alarm more often, and so do several images of each part.

A difference that is certain but small is no alarm: where at most one inspection in ten is not as it was, the
distance is at most 0.1. The converse does not hold: a distance below 0.1 may come of a change of all.
"""

import json
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.database import clock
from app.history.comparison import Comparison, compare
from flows.fastflow.manifest import Precision

logger = logging.getLogger("flowgauge.drift")

LOOKS: Final = 20
# An alarm ends when every distance has fallen below this share of what raises it: it does not flicker.
_CLEAR: Final = 0.75

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class DriftReference:
    """Calibration images that the inspections of a category are compared with.

    Attributes:
        settings: of what else changes scores, the revision; a window never spans two.
        rising_only: whether only higher scores count: a region of interest lowers them.
        samples: by name, the calibration images' values, sorted: "score" first, then the features in the
            order of a row's `features`.
        since_ms: from when on version and settings may have been the same, in milliseconds since 1970, UTC.
        station: whose it is: of a station that has a calibration of its own; None of all others.
        precision: of the engine that scored the calibration images; scores of others do not compare.
    """

    version: str
    settings: object
    rising_only: bool
    samples: Mapping[str, NDArray[np.float64]]
    since_ms: int = 0
    station: str | None = None
    precision: Precision = "float32"

    def same(self, other: "DriftReference") -> bool:
        """Whether inspections of one window may be compared with both."""
        return (self.version, self.settings) == (other.version, other.settings)


@dataclass(frozen=True)
class DriftState:
    """DriftMonitor of a category, or of a station with a calibration of its own.

    Attributes:
        version: the one that serves, whose inspections these are.
        inspections: how many are in the window.
        since: when the oldest of them was made, ISO 8601.
        comparisons: by the last look; none before the first.
        alarm_since: when the inspection was made that raised the alarm, ISO 8601.
    """

    version: str
    inspections: int = 0
    since: str | None = None
    comparisons: tuple[Comparison, ...] = ()
    alarm_since: str | None = None
    station: str | None = None

    @property
    def alarm(self) -> bool:
        """Whether the inspections differ from the calibration images."""
        return self.alarm_since is not None


class DriftMonitor:
    """The windows of all categories. May be used from several threads at once.

    Args:
        window: inspections compared at a time.
        reference: gives what inspections of a category and a station are compared with now; None where there
            is nothing.
        latest: gives the latest rows of a category, so many at most, oldest first: of one station, or, where
            that is None, of all but some; from an id on. Filing waits for it, so it must not read a whole
            history.
        categories: those that are watched before anything of them is inspected or asked about.
        stations: those of a category that have a calibration of their own.
    """

    def __init__(
        self,
        window: int,
        reference: Callable[[str, str | None], DriftReference | None],
        latest: Callable[[str, int, str | None, Sequence[str], str], Sequence[Row]],
        categories: Callable[[], Iterable[str]] = tuple,
        stations: Callable[[str], Sequence[str]] = lambda _: (),
    ) -> None:
        self.window = window
        self._reference = reference
        self._latest = latest
        self._categories = categories
        self._stations = stations
        self._windows: dict[tuple[str, str | None], _Window] = {}
        self._lock = threading.Lock()

    def on_filed(self, rows: Sequence[Row]) -> None:
        """Take up inspections that are in the database now."""
        by_place: dict[tuple[str, str | None], list[Row]] = {}
        for row in rows:
            by_place.setdefault((row["category"], row.get("station")), []).append(row)
        for (category, station), own in by_place.items():
            with self._lock:
                window = self._current(category, station)
                if window is not None:
                    window.add(own)

    def state(self, category: str, station: str | None = None) -> DriftState | None:
        """How a category is, or a station of it that has a calibration of its own; else as the others.

        None where there is no active version to compare with.
        """
        with self._lock:
            window = self._current(category, station)
            return None if window is None else window.state()

    def windows(self, category: str) -> list[DriftState]:
        """How a category is, and after that each of its stations that has a calibration of its own.

        None of them where there is no active version to compare with.
        """
        stations = (None, *self._stations(category))
        found = [(station, self.state(category, station)) for station in stations]
        # A calibration may have come or gone between the one look and the other.
        return [state for station, state in found if state is not None and state.station == station]

    def states(self) -> dict[str, list[DriftState]]:
        """The windows of all categories that have an active version."""
        names = dict.fromkeys((*self._categories(), *(category for category, _ in tuple(self._windows))))
        found = ((category, self.windows(category)) for category in names)
        return {category: states for category, states in found if states}

    def _current(self, category: str, station: str | None) -> "_Window | None":
        """The window of what is active now: begun afresh when that changes, at start from the database."""
        reference = self._reference(category, station)
        if reference is None or reference.station != station:
            # The model is gone, or the station's own calibration.
            self._windows.pop((category, station), None)
        if reference is None:
            return None
        key = category, reference.station
        known = self._windows.get(key)
        if known is not None and known.reference.same(reference):
            return known
        window = self._windows[key] = _Window(category, reference, self.window)
        if known is None:
            without = () if reference.station is not None else self._stations(category)
            since = clock.first_id(reference.since_ms)
            window.add(self._latest(category, self.window, reference.station, without, since))
        return window


class _Window:
    """The latest inspections that compare with a reference."""

    def __init__(self, category: str, reference: DriftReference, size: int) -> None:
        self._category = category
        self.reference = reference
        self._rows = deque[tuple[str, tuple[float, ...]]](maxlen=size)
        self._every = -(-size // LOOKS)  # rounded up: no more looks than the level is divided by
        self._added = 0
        self._comparisons: tuple[Comparison, ...] = ()
        self._alarm_since: str | None = None  # an inspection

    def state(self) -> DriftState:
        """What is known now."""
        since, alarm_since = (
            None if identifier is None else clock.iso(clock.id_to_ms(identifier))
            for identifier in (self._rows[0][0] if self._rows else None, self._alarm_since)
        )
        station, version = self.reference.station, self.reference.version
        return DriftState(version, len(self._rows), since, self._comparisons, alarm_since, station)

    def add(self, rows: Sequence[Row]) -> None:
        """Take up inspections; those that do not compare, or are there already, are left out."""
        # At the start rows may be read from the database that are just being announced.
        known = {identifier for identifier, _ in self._rows}
        wanted = self.reference.version, self.reference.precision
        for row in rows:
            if (row["version"], row["precision"]) != wanted or row["id"] in known:
                continue
            self._rows.append((row["id"], _values(row, len(self.reference.samples))))
            self._added += 1
            if self._added % self._every == 0:
                self._look()

    def _look(self) -> None:
        """Compare, and turn the alarm on or off."""
        table = np.array([values for _, values in self._rows])
        samples = self.reference.samples
        tests = LOOKS * len(samples)
        self._comparisons = tuple(
            compare(
                name,
                sample,
                column[~np.isnan(column)],
                tests,
                rising=name == "score" and self.reference.rising_only,
            )
            for (name, sample), column in zip(samples.items(), table.T, strict=True)
            if not np.isnan(column).all()
        )
        if self._alarm_since is None:
            far = [comparison for comparison in self._comparisons if comparison.reaches()]
            if far:
                self._alarm_since = self._rows[-1][0]
                logger.warning(
                    "the latest %d inspections of %s by %s differ from its calibration images: %s",
                    len(self._rows),
                    self._category,
                    self.reference.version,
                    ", ".join(f"{c.name} (distance {c.distance:.2f}, shift {c.shift:+.2f})" for c in far),
                )
        elif not any(comparison.reaches(_CLEAR) for comparison in self._comparisons):
            self._alarm_since = None
            logger.warning("the inspections of %s are like its calibration images again", self._category)


def _values(row: Row, width: int) -> tuple[float, ...]:
    """The score and the features of a row; NaN for features that it does not have."""
    features = json.loads(row["features"]) if row["features"] else []
    if len(features) != width - 1:
        features = [math.nan] * (width - 1)
    return (row["score"], *features)
