"""Drift of several servers: the leader compares what all inspect, and all report its results."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import Row as DatabaseRow
from sqlalchemy import delete, func, insert, select

from app.database.engine import Database, DatabaseUnavailable
from app.database.shared_tables import drift_windows
from app.history.drift import DriftMonitor, DriftWindow, Row

_COLUMNS = drift_windows.c
_REFRESH_SECONDS: Final = 1.0

_Key = tuple[str, str | None]


class LeaderDrift(DriftMonitor):
    """The windows of all servers, in the leader, which stores each one after its test."""

    def __init__(self, database: Database, *monitor: Any) -> None:
        super().__init__(*monitor)
        self._database = database
        self._stored: dict[DriftWindow, int] = {}
        self._is_filled = False

    def on_filed(self, rows: Sequence[Row]) -> None:
        """Add inspections of all servers, in the order of their commits."""
        if not self._is_filled:
            self.states()
            self._is_filled = True
        super().on_filed(rows)
        self._store()

    def _store(self) -> None:
        """Store the windows that were tested since the last time."""
        with self._lock:
            tested = {key: one for key, one in self._windows.items() if self._stored.get(one, 0) != one.tests}
            rows = [_to_row(key, window) for key, window in tested.items()]
        if rows:
            with self._database.write() as connection:
                number = (connection.scalar(select(func.max(_COLUMNS.number))) or 0) + 1
                for row in rows:
                    place = _COLUMNS.category == row["category"], _COLUMNS.station == row["station"]
                    connection.execute(delete(drift_windows).where(*place))
                connection.execute(insert(drift_windows), [{**row, "number": number} for row in rows])
        self._stored = {window: window.tests for window in self._windows.values()}

    def _fill(self, category: str, window: DriftWindow) -> None:
        """Fill a window as the leader before has left it, so that no alarm is told twice."""
        stored = _read(self._database, 0, category).get((category, window.reference.station))
        if stored is None or not _belongs(stored, window):
            super()._fill(category, window)
            return
        rows = json.loads(stored.rows)
        newest = max(identifier for identifier, _ in rows)
        latest = window.values_of(self._load_latest(category, window))
        window.restore([*rows, *(row for row in latest if row[0] > newest)], stored.alarm_since)


class SharedDrift(DriftMonitor):
    """The drift that the leader has stored, for the reports of any server."""

    def __init__(self, database: Database, *monitor: Any) -> None:
        super().__init__(*monitor)
        self._database = database
        self._stored: dict[_Key, DatabaseRow[Any]] = {}
        self._shown: dict[DriftWindow, int] = {}
        self._refreshed = float("-inf")

    def _current(self, category: str, station: str | None) -> DriftWindow | None:
        self._refresh()
        window = super()._current(category, station)
        if window is not None:
            stored = self._stored.get((category, window.reference.station))
            if stored is not None and _belongs(stored, window) and self._shown.get(window) != stored.number:
                window.restore(json.loads(stored.rows), stored.alarm_since)
                self._shown = {one: self._shown.get(one, 0) for one in self._windows.values()}
                self._shown[window] = stored.number
        return window

    def _fill(self, category: str, window: DriftWindow) -> None:
        """Leave the window empty: it is the leader's."""

    def _refresh(self) -> None:
        """Read what was stored since the last time; without a database, what is known stays."""
        if time.monotonic() < self._refreshed + _REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        newest = max((row.number for row in self._stored.values()), default=0)
        with suppress(DatabaseUnavailable):
            self._stored |= _read(self._database, newest)


def _to_row(key: _Key, window: DriftWindow) -> dict[str, Any]:
    category, station = key
    return {
        "category": category,
        "station": station or "",
        "version": window.reference.version,
        "settings": repr(window.reference.settings),
        "alarm_since": window.alarm_since,
        "rows": json.dumps(list(window.rows)),
    }


def _read(database: Database, after: int, category: str | None = None) -> dict[_Key, DatabaseRow[Any]]:
    """Read the windows stored after a number, by category and station."""
    query = select(drift_windows).where(_COLUMNS.number > after)
    if category is not None:
        query = query.where(_COLUMNS.category == category)
    with database.read() as connection:
        return {(row.category, row.station or None): row for row in connection.execute(query)}


def _belongs(stored: DatabaseRow[Any], window: DriftWindow) -> bool:
    """Tell if a stored window was compared with the same reference."""
    reference = window.reference
    return (stored.version, stored.settings) == (reference.version, repr(reference.settings))
