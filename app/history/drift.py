"""Drift monitoring: comparison of recent inspections with the calibration images.

A window holds the latest inspections of the serving version of a category. A station with its own calibration
has its own window. The two-sample Kolmogorov-Smirnov statistic compares scores, and mean and deviation of the
features of every scale.

A window is tested twenty times. Each test of each statistic has the level 0.01 divided by their number
(Bonferroni). So if inspected parts are exchangeable with the calibration images, the probability of an alarm
in one window is at most 1 %. Parts that resemble their predecessors (batches of material, several images of a
part) are not exchangeable and raise more alarms.

A significant but small difference is no alarm: if at most one inspection in ten changed, the distance is at
most 0.1. The converse does not hold: a change of all inspections may give a distance below 0.1.
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
# An alarm ends when every distance is below this share of its alarm distance, so that it does not flicker.
_CLEAR: Final = 0.75

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class DriftReference:
    """Statistics of the calibration images that inspections are compared with.

    Attributes:
        settings: revision of everything else that changes scores; a window never spans two.
        rising_only: true if only higher scores count, because a region of interest lowers scores.
        samples: by name, the calibration images' values, sorted: "score" first, then the features in the
            order of a row's `features`.
        since_ms: earliest time of this version and these settings, in milliseconds since 1970, UTC.
        station: the station with its own calibration; None for all others.
        precision: precision of the engine that scored the calibration images; others do not compare.
    """

    version: str
    settings: object
    rising_only: bool
    samples: Mapping[str, NDArray[np.float64]]
    since_ms: int = 0
    station: str | None = None
    precision: Precision = "float32"

    def same(self, other: "DriftReference") -> bool:
        """Tell if one window may be compared with both."""
        return (self.version, self.settings) == (other.version, other.settings)


@dataclass(frozen=True)
class DriftState:
    """Drift of a category, or of a station with its own calibration.

    Attributes:
        version: the serving version.
        inspections: number of inspections in the window.
        since: time of the oldest of them, ISO 8601.
        comparisons: results of the latest test; empty before the first.
        alarm_since: time of the inspection that raised the alarm, ISO 8601.
    """

    version: str
    inspections: int = 0
    since: str | None = None
    comparisons: tuple[Comparison, ...] = ()
    alarm_since: str | None = None
    station: str | None = None

    @property
    def alarm(self) -> bool:
        """True if the inspections differ from the calibration images."""
        return self.alarm_since is not None


class DriftMonitor:
    """The drift windows of all categories. Thread-safe.

    Args:
        window: number of inspections in a window.
        reference: returns the current reference of a category and station; None if there is none.
        latest: returns the latest rows, oldest first; its arguments are category, limit, station (None for
            all), excluded stations and first id. The history's writer waits for it: it must not read a whole
            history.
        categories: returns the categories to watch from the start.
        stations: returns a category's stations with their own calibration.
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
        self._windows: dict[tuple[str, str | None], DriftWindow] = {}
        self._lock = threading.Lock()

    def on_filed(self, rows: Sequence[Row]) -> None:
        """Add inspections that were just written to the database."""
        by_place: dict[tuple[str, str | None], list[Row]] = {}
        for row in rows:
            by_place.setdefault((row["category"], row.get("station")), []).append(row)
        for (category, station), own in by_place.items():
            with self._lock:
                window = self._current(category, station)
                if window is not None:
                    window.add(own)

    def state(self, category: str, station: str | None = None) -> DriftState | None:
        """Return the drift of a station with its own calibration, else that of its category.

        None if no active version gives a reference.
        """
        with self._lock:
            window = self._current(category, station)
            return None if window is None else window.state()

    def windows(self, category: str) -> list[DriftState]:
        """Return the drift of a category, then that of each station with its own calibration.

        Empty if no active version gives a reference.
        """
        stations = (None, *self._stations(category))
        found = [(station, self.state(category, station)) for station in stations]
        # A calibration may have been added or removed in between.
        return [state for station, state in found if state is not None and state.station == station]

    def states(self) -> dict[str, list[DriftState]]:
        """Return the drift of all categories that have an active version."""
        names = dict.fromkeys((*self._categories(), *(category for category, _ in tuple(self._windows))))
        found = ((category, self.windows(category)) for category in names)
        return {category: states for category, states in found if states}

    def _current(self, category: str, station: str | None) -> "DriftWindow | None":
        """Return the current window; a new one after a change, filled from the database at the start."""
        reference = self._reference(category, station)
        if reference is None or reference.station != station:
            # The model or the station's own calibration is gone.
            self._windows.pop((category, station), None)
        if reference is None:
            return None
        key = category, reference.station
        known = self._windows.get(key)
        if known is not None and known.reference.same(reference):
            return known
        window = self._windows[key] = DriftWindow(category, reference, self.window)
        if known is None:
            self._fill(category, window)
        return window

    def _fill(self, category: str, window: "DriftWindow") -> None:
        """Fill a new window from the database."""
        window.add(self._load_latest(category, window))

    def _load_latest(self, category: str, window: "DriftWindow") -> Sequence[Row]:
        reference = window.reference
        without = () if reference.station is not None else self._stations(category)
        since = clock.first_id(reference.since_ms)
        return self._latest(category, self.window, reference.station, without, since)


class DriftWindow:
    """The latest inspections that are comparable with a reference.

    Attributes:
        rows: id and values of each inspection.
        alarm_since: the inspection that raised the alarm.
        tests: number of tests so far.
    """

    def __init__(self, category: str, reference: DriftReference, size: int) -> None:
        self._category = category
        self.reference = reference
        self.rows = deque[tuple[str, tuple[float, ...]]](maxlen=size)
        self._every = -(-size // LOOKS)  # rounded up: at most LOOKS tests per window
        self._added = 0
        self._comparisons: tuple[Comparison, ...] = ()
        self.alarm_since: str | None = None  # an inspection
        self.tests = 0

    def state(self) -> DriftState:
        since, alarm_since = (
            None if identifier is None else clock.iso(clock.id_to_ms(identifier))
            for identifier in (self.rows[0][0] if self.rows else None, self.alarm_since)
        )
        station, version = self.reference.station, self.reference.version
        return DriftState(version, len(self.rows), since, self._comparisons, alarm_since, station)

    def add(self, rows: Sequence[Row]) -> None:
        """Add inspections; skip those that are not comparable or already there."""
        # At the start a row may come both from the database and from the writer.
        known = {identifier for identifier, _ in self.rows}
        for identifier, values in self.values_of(rows):
            if identifier in known:
                continue
            self.rows.append((identifier, values))
            self._added += 1
            if self._added % self._every == 0:
                self._test()

    def restore(self, rows: Iterable[tuple[str, Sequence[float]]], alarm_since: str | None) -> None:
        """Replace the window by another server's, and compare it; no alarm is raised or cleared."""
        self.rows.clear()
        self.rows.extend((identifier, tuple(values)) for identifier, values in rows)
        self._added = len(self.rows)
        self.alarm_since = alarm_since
        self._comparisons = self._compare() if self.rows else ()
        self.tests += 1

    def values_of(self, rows: Sequence[Row]) -> list[tuple[str, tuple[float, ...]]]:
        """Return ids and values of the comparable rows."""
        comparable = self.reference.version, self.reference.precision
        width = len(self.reference.samples)
        return [
            (row["id"], _values(row, width))
            for row in rows
            if (row["version"], row["precision"]) == comparable
        ]

    def _compare(self) -> tuple[Comparison, ...]:
        table = np.array([values for _, values in self.rows])
        samples = self.reference.samples
        tests = LOOKS * len(samples)
        return tuple(
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

    def _test(self) -> None:
        """Compare the window with the reference, and set or clear the alarm."""
        self.tests += 1
        self._comparisons = self._compare()
        if self.alarm_since is None:
            far = [comparison for comparison in self._comparisons if comparison.reaches()]
            if far:
                self.alarm_since = self.rows[-1][0]
                logger.warning(
                    "the latest %d inspections of %s by %s differ from its calibration images: %s",
                    len(self.rows),
                    self._category,
                    self.reference.version,
                    ", ".join(f"{c.name} (distance {c.distance:.2f}, shift {c.shift:+.2f})" for c in far),
                )
        elif not any(comparison.reaches(_CLEAR) for comparison in self._comparisons):
            self.alarm_since = None
            logger.warning("the inspections of %s match its calibration images again", self._category)


def _values(row: Row, width: int) -> tuple[float, ...]:
    """Return the score and the features of a row; NaN for missing features."""
    features = json.loads(row["features"]) if row["features"] else []
    if len(features) != width - 1:
        features = [math.nan] * (width - 1)
    return (row["score"], *features)
