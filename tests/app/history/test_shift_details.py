"""A shift taken apart over each kind of database: its stations, its hours, its worst rejects."""

from datetime import UTC, datetime
from typing import Any

from app.database import clock
from app.database.engine import Database
from app.history.queries import SUMMARY
from app.history.reports import Span
from app.history.shift_details import HOUR_MS, MOST_REJECTS, MOST_STATIONS, Details, details
from tests.app.history.rows import add, row

MIDNIGHT = clock.from_datetime(datetime(2026, 11, 25, tzinfo=UTC))
BEGIN = MIDNIGHT + 6 * HOUR_MS
SHIFT = Span(BEGIN, BEGIN + 8 * HOUR_MS)
NOTHING = Details({}, False, {}, [])


def look(database: Database, span: Span = SHIFT, station: str | None = None) -> Details:
    with database.read() as connection:
        return details(connection, "tiny", span, station)


def reject(at_ms: int = BEGIN, **columns: Any) -> dict[str, Any]:
    return row(at_ms, decision="REJECT", **columns)


def ids(found: Details) -> list[str]:
    return [one.id for one in found.rejects]


def test_stations_come_by_name_and_what_has_none_first(database: Database) -> None:
    names = ["line 2", "Ä", None, "b", "line 10", "B", ""]
    add(database, *(row(BEGIN + i, station=name) for i, name in enumerate(names)))
    assert list(look(database).stations) == [None, "", "B", "b", "line 10", "line 2", "Ä"]


def test_each_station_has_counts_of_the_decisions_that_it_had(database: Database) -> None:
    made = [
        ("b", "PASS"),
        ("a", "REJECT"),
        (None, "REVIEW"),
        ("a", "PASS"),
        ("b", "PASS"),
        (None, "PASS"),
        ("a", "REJECT"),
    ]
    add(database, *(row(BEGIN, station=station, decision=decision) for station, decision in made))
    assert look(database).stations == {
        None: {"PASS": 1, "REVIEW": 1},
        "a": {"PASS": 1, "REJECT": 2},
        "b": {"PASS": 2},
    }


def test_of_very_many_stations_those_with_most_inspections_are_shown(database: Database) -> None:
    names = [f"s{i:03}" for i in range(MOST_STATIONS)]
    add(database, *(row(BEGIN, station=name) for name in names), *(reject(station=n) for n in names[1:]))
    found = look(database)
    assert (list(found.stations), found.more_stations) == (names, False)
    add(database, row(BEGIN), row(BEGIN), row(BEGIN))
    found = look(database)
    assert (list(found.stations), found.more_stations) == ([None, *names[1:]], True)
    assert (found.stations[None], found.stations["s001"]) == ({"PASS": 3}, {"PASS": 1, "REJECT": 1})


def test_hours_have_the_time_at_which_they_begin(database: Database) -> None:
    add(
        database,
        row(BEGIN + 3 * HOUR_MS, decision="REVIEW"),
        row(BEGIN + HOUR_MS),
        row(BEGIN),
        row(BEGIN + HOUR_MS - 1),
        reject(BEGIN + 1),
    )
    found = look(database).hours
    assert found == {
        BEGIN: {"PASS": 2, "REJECT": 1},
        BEGIN + HOUR_MS: {"PASS": 1},
        BEGIN + 3 * HOUR_MS: {"REVIEW": 1},  # and none for the hour without inspections
    }
    assert list(found) == sorted(found)


def test_hours_go_on_past_midnight(database: Database) -> None:
    night = Span(MIDNIGHT - 2 * HOUR_MS, MIDNIGHT + 6 * HOUR_MS)
    at = (-2 * HOUR_MS, -HOUR_MS, -1, 0, HOUR_MS - 1, HOUR_MS)
    add(database, *(row(MIDNIGHT + one) for one in at))
    found = look(database, night).hours
    assert [(clock.iso(begin), counts) for begin, counts in found.items()] == [
        ("2026-11-24T22:00:00.000Z", {"PASS": 1}),
        ("2026-11-24T23:00:00.000Z", {"PASS": 2}),
        ("2026-11-25T00:00:00.000Z", {"PASS": 2}),
        ("2026-11-25T01:00:00.000Z", {"PASS": 1}),
    ]


def test_a_shift_that_begins_within_an_hour_has_what_is_left_of_it(database: Database) -> None:
    late = Span(BEGIN + HOUR_MS // 2, BEGIN + HOUR_MS * 3 // 2)
    at = (0, HOUR_MS // 2, HOUR_MS, HOUR_MS * 3 // 2)
    add(database, *(row(BEGIN + one) for one in at))
    assert look(database, late).hours == {BEGIN: {"PASS": 1}, BEGIN + HOUR_MS: {"PASS": 1}}


def test_the_worst_rejects_are_those_least_like_good_parts(database: Database) -> None:
    """By p-value; of the same p-value by the highest score; of the same score by id."""
    made = add(
        database,
        reject(p_value=0.5, score=99.0),
        reject(p_value=0.01, score=7.0),
        reject(p_value=0.002, score=1.0),
        reject(p_value=0.01, score=8.0),
        reject(p_value=0.01, score=7.0),
    )
    assert ids(look(database)) == [made[i] for i in (2, 3, 1, 4, 0)]


def test_each_station_and_version_shows_its_worst_before_another_shows_more(database: Database) -> None:
    """p-values of few calibration images are never small, however strange a part is."""
    many = [reject(station="line-1", p_value=0.001, score=5 + i / 100) for i in range(MOST_REJECTS)]
    few = reject(station="line-3", p_value=0.048, score=400.0)
    older = reject(station="line-1", p_value=0.02, score=3.0, version="v0")
    made = add(database, *many, few, older)
    assert ids(look(database)) == [made[5], made[7], made[6], made[4], made[3], made[2]]
    assert ids(look(database, station="line-1"))[:2] == [made[5], made[7]]


def test_rejects_that_are_alike_come_by_id_however_they_were_filed(database: Database) -> None:
    rows = [reject(BEGIN + at) for at in range(MOST_REJECTS + 2)]
    add(database, *reversed(rows))
    assert ids(look(database)) == [one["id"] for one in rows[:MOST_REJECTS]]


def test_no_more_than_the_six_worst_rejects_are_shown(database: Database) -> None:
    places = [5, 2, 8, 0, 7, 3, 1, 6, 4]
    made = add(database, *(reject(p_value=place / 100) for place in places))
    found = look(database)
    assert ids(found) == [made[places.index(place)] for place in range(6)]
    assert found.hours == {BEGIN: {"REJECT": 9}}  # all of them are counted


def test_what_was_not_rejected_is_no_reject_however_bad_it_was(database: Database) -> None:
    _, worst, _ = add(
        database,
        row(BEGIN, p_value=0.0, score=100.0),
        reject(p_value=0.75, score=1.0),
        row(BEGIN, decision="REVIEW", p_value=0.0, score=100.0),
    )
    assert ids(look(database)) == [worst]


def test_a_reject_has_what_lists_show_of_an_inspection(database: Database) -> None:
    made = reject(station="a", part_id="p", score=4.5, p_value=0.125, verdict="defect")
    add(database, made)
    (found,) = look(database).rejects
    assert found._asdict() == {column.name: made[column.name] for column in SUMMARY}


def test_a_station_has_a_shift_of_its_own(database: Database) -> None:
    wanted = add(database, reject(station="a"), row(BEGIN + HOUR_MS, station="a"))
    add(database, reject(station="b"), reject(station="A"), reject(BEGIN + HOUR_MS))
    found = look(database, station="a")
    assert found.stations == {"a": {"PASS": 1, "REJECT": 1}}
    assert found.hours == {BEGIN: {"REJECT": 1}, BEGIN + HOUR_MS: {"PASS": 1}}
    assert ids(found) == wanted[:1]
    assert look(database, station="c") == NOTHING


def test_another_category_takes_no_part(database: Database) -> None:
    (own,) = add(database, reject(station="a"))
    add(database, reject(category="other", station="b"), row(BEGIN + HOUR_MS, category="other"))
    found = look(database)
    assert found.stations == {"a": {"REJECT": 1}}
    assert found.hours == {BEGIN: {"REJECT": 1}}
    assert ids(found) == [own]


def test_a_shift_holds_its_begin_and_not_its_end(database: Database) -> None:
    made = add(
        database,
        reject(BEGIN - 1, station="before"),
        reject(BEGIN, station="begin"),
        reject(SHIFT.to_ms - 1, station="last"),
        reject(SHIFT.to_ms, station="end"),
    )
    found = look(database)
    assert found.stations == {"begin": {"REJECT": 1}, "last": {"REJECT": 1}}
    assert found.hours == {BEGIN: {"REJECT": 1}, SHIFT.to_ms - HOUR_MS: {"REJECT": 1}}
    assert ids(found) == made[1:3]


def test_a_shift_in_which_nothing_was_inspected_is_empty(database: Database) -> None:
    assert look(database) == NOTHING
    add(database, reject(BEGIN - HOUR_MS), reject(SHIFT.to_ms))
    assert look(database) == NOTHING
    assert look(database, Span(SHIFT.to_ms, SHIFT.to_ms)) == NOTHING  # no time at all
