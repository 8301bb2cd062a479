from datetime import UTC, datetime
from typing import Any

from app.database import clock
from app.database.engine import Database
from app.history.decision_counts import TimeSpan
from app.history.shift_report import HOUR_MS, MAX_REJECTS, details
from app.schemas.reports import ShiftDetails
from tests.app.history.rows import add, row

MIDNIGHT = clock.from_datetime(datetime(2026, 11, 25, tzinfo=UTC))
BEGIN = MIDNIGHT + 6 * HOUR_MS
SHIFT = TimeSpan(BEGIN, BEGIN + 8 * HOUR_MS)


def look(database: Database, span: TimeSpan = SHIFT, station: str | None = None) -> ShiftDetails:
    with database.read() as connection:
        return details(connection, "tiny", span, station)


def reject(at_ms: int = BEGIN, **columns: Any) -> dict[str, Any]:
    return row(at_ms, decision="REJECT", **columns)


def ids(found: ShiftDetails) -> list[str]:
    return [one.inspection_id for one in found.rejects]


def stations(found: ShiftDetails) -> dict[str | None, Any]:
    return {one.station: one.decisions for one in found.stations}


def hours(found: ShiftDetails) -> dict[str, Any]:
    return {one.from_: one.decisions for one in found.hours}


def hour(number: int) -> str:
    return clock.iso(BEGIN + number * HOUR_MS)


def test_stations_are_sorted_with_no_station_first(each_database: Database) -> None:
    names = ["line 2", "Ä", None, "b", "line 10", "B", ""]
    add(each_database, *(row(BEGIN + i, station=name) for i, name in enumerate(names)))
    assert list(stations(look(each_database))) == [None, "", "B", "b", "line 10", "line 2", "Ä"]


def test_kinds_of_defect_come_most_frequent_first(each_database: Database) -> None:
    kinds = ["dent", "scratch", None, "scratch"]
    add(each_database, *(row(BEGIN + i, verdict="defect", kind=kind) for i, kind in enumerate(kinds)))
    add(each_database, row(BEGIN, verdict="good"), row(BEGIN), row(BEGIN - 1, verdict="defect", kind="dent"))
    assert [tuple(dict(one).values()) for one in look(each_database).kinds] == [
        ("scratch", 2, 0.5, 0.5),
        ("dent", 1, 0.25, 0.75),
        (None, 1, 0.25, 1.0),
    ]


def test_hours_have_their_start_time(each_database: Database) -> None:
    add(
        each_database,
        row(BEGIN + 3 * HOUR_MS, decision="REVIEW"),
        row(BEGIN + HOUR_MS),
        row(BEGIN),
        row(BEGIN + HOUR_MS - 1),
        reject(BEGIN + 1),
    )
    found = hours(look(each_database))
    assert found == {
        hour(0): {"PASS": 2, "REJECT": 1},
        hour(1): {"PASS": 1},
        hour(3): {"REVIEW": 1},  # and none for the hour without inspections
    }
    assert list(found) == sorted(found)


def test_worst_rejects_have_the_smallest_p_values(database: Database) -> None:
    made = add(
        database,
        reject(p_value=0.5, score=99.0),
        reject(p_value=0.01, score=7.0),
        reject(p_value=0.002, score=1.0),
        reject(p_value=0.01, score=8.0),
        reject(p_value=0.01, score=7.0),
    )
    assert ids(look(database)) == [made[i] for i in (2, 3, 1, 4, 0)]


def test_worst_reject_of_each_station_is_shown_first(each_database: Database) -> None:
    many = [reject(station="line-1", p_value=0.001, score=5 + i / 100) for i in range(MAX_REJECTS)]
    few = reject(station="line-3", p_value=0.048, score=400.0)
    older = reject(station="line-1", p_value=0.02, score=3.0, version="v0")
    made = add(each_database, *many, few, older)
    assert ids(look(each_database)) == [made[5], made[7], made[6], made[4], made[3], made[2]]
    assert ids(look(each_database, station="line-1"))[:2] == [made[5], made[7]]


def test_report_can_be_of_one_station(database: Database) -> None:
    expected = add(database, reject(station="a"), row(BEGIN + HOUR_MS, station="a"))
    add(database, reject(station="b"), reject(station="A"), reject(BEGIN + HOUR_MS))
    found = look(database, station="a")
    assert stations(found) == {"a": {"PASS": 1, "REJECT": 1}}
    assert hours(found) == {hour(0): {"REJECT": 1}, hour(1): {"PASS": 1}}
    assert ids(found) == expected[:1]
    assert look(database, station="c") == ShiftDetails(stations=[], hours=[], rejects=[], kinds=[])


def test_shift_excludes_its_end(database: Database) -> None:
    made = add(
        database,
        reject(BEGIN - 1, station="before"),
        reject(BEGIN, station="begin"),
        reject(SHIFT.to_ms - 1, station="last"),
        reject(SHIFT.to_ms, station="end"),
    )
    found = look(database)
    assert stations(found) == {"begin": {"REJECT": 1}, "last": {"REJECT": 1}}
    assert hours(found) == {hour(0): {"REJECT": 1}, hour(7): {"REJECT": 1}}
    assert ids(found) == made[1:3]
