import json
import threading

import pytest
from sqlalchemy import text

from app.database.engine import Database
from app.events import log
from app.events.log import EventSelector, NewEvent, NumberedEvent


def happening(name: str, **columns: str | None) -> NewEvent:
    values = {"kind": "inspection", "category": "bottle", "station": None, "decision": "PASS", **columns}
    return NewEvent(data=json.dumps({"name": name}), **values)  # type: ignore[arg-type]


def add(database: Database, *happenings: NewEvent) -> None:
    with database.write() as connection:
        log.append(connection, happenings)


def read(
    database: Database, after: int = 0, limit: int = 100, wanted: EventSelector | None = None
) -> list[NumberedEvent]:
    with database.read() as connection:
        return log.read(connection, after, limit, wanted)


def names(events: list[NumberedEvent]) -> list[str]:
    return [json.loads(event.data)["name"] for event in events]


def test_events_are_read_in_order(database: Database) -> None:
    add(database, happening("a"), happening("b"))
    add(database)
    add(database, happening("c", station="s", decision=None, kind="model"))
    events = read(database)
    assert names(events) == ["a", "b", "c"]
    assert [event.number for event in events] == sorted({event.number for event in events})
    assert (events[2].station, events[2].decision, events[2].kind) == ("s", None, "model")
    assert names(read(database, after=events[0].number)) == ["b", "c"]
    assert names(read(database, limit=2)) == ["a", "b"]
    with database.read() as connection:
        assert log.newest_number(connection) == events[2].number


CASES: list[tuple[dict[str, set[str]], str]] = [
    ({}, "abcdef"),
    ({"category": {"bottle"}}, "abcf"),
    ({"station": {"s1"}}, "bd"),
    ({"decision": {"REJECT", "PASS"}, "category": {"bottle"}}, "abc"),
    ({"category": set()}, ""),
    ({"kind": {"model"}}, "ef"),
    ({"kind": {"inspection"}, "station": {"s1"}, "category": {"grid"}}, "d"),
]


@pytest.mark.parametrize(("given", "expected"), CASES)
def test_filter_matches_the_same_in_sql(
    database: Database, given: dict[str, set[str]], expected: str
) -> None:
    wanted = EventSelector(**{column: frozenset(values) for column, values in given.items()})
    happenings = [
        happening("a"),
        happening("b", station="s1", decision="REJECT"),
        happening("c", station="s2"),
        happening("d", station="s1", decision="REJECT", category="grid"),
        happening("e", kind="model", category="grid", decision=None),
        happening("f", kind="model", decision=None),
    ]
    add(database, *happenings)
    assert "".join(names(read(database, wanted=wanted))) == expected
    assert "".join(json.loads(h.data)["name"] for h in happenings if wanted.matches(h)) == expected


def test_oldest_events_are_deleted_and_numbers_continue(database: Database) -> None:
    add(database, *(happening(str(i)) for i in range(10)))
    before = read(database)
    with database.write() as connection:
        assert log.trim(connection, keep=3, limit=4) == 4
        assert log.trim(connection, keep=3, limit=4) == 3
        assert log.trim(connection, keep=3, limit=4) == 0
        assert log.last_deleted(connection) == before[6].number
    add(database, happening("next"))
    assert names(read(database)) == ["7", "8", "9", "next"]
    assert read(database)[-1].number > before[-1].number


def test_no_smaller_number_appears_later(database: Database) -> None:
    """Eight writers commit in any order; a reader misses nothing."""
    done = threading.Event()
    seen: list[NumberedEvent] = []

    def write(writer: int) -> None:
        for i in range(25):
            with database.write() as connection:
                log.append(connection, [happening(f"{writer}-{i}")])
                if not database.is_sqlite:
                    connection.execute(text("SELECT pg_sleep(:s)"), {"s": (writer + i) % 3 / 1000})

    def follow() -> None:
        while True:
            last = done.is_set()
            seen.extend(read(database, seen[-1].number if seen else 0, limit=10**6))
            if last:
                return

    reader = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert sorted(names(seen)) == sorted(f"{writer}-{i}" for writer in range(8) for i in range(25))
