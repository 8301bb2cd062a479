from app.database.engine import Database
from app.events import log
from app.events.log import NewEvent
from app.events.sinks import positions


def test_new_sink_starts_after_the_newest_event(database: Database) -> None:
    with database.write() as connection:
        assert positions.begin(connection, "a") == 0
        log.append(connection, [NewEvent("inspection", "bottle", None, "PASS", "{}")] * 3)
    with database.write() as connection:
        newest = log.newest_number(connection)
        assert (positions.begin(connection, "a"), positions.begin(connection, "b")) == (0, newest)
        positions.move(connection, "a", 2)
        positions.move(connection, "a", 1)  # of a server that led before, and is late
    with database.write() as connection:
        assert (positions.begin(connection, "a"), positions.begin(connection, "b")) == (2, newest)


def test_failed_delivery_keeps_its_latest_reason(database: Database) -> None:
    with database.write() as connection:
        log.append(connection, [NewEvent("inspection", "bottle", None, "PASS", str(n)) for n in range(2)])
        for reason in ("500", "410"):
            positions.give_up(connection, "a", 1, reason)
        [(_, reason, data)] = positions.given_up(connection, "a")
        assert (reason, data) == ("410", "0")
        assert positions.given_up(connection, "b") == []
        log.trim(connection, keep=1, limit=1000)
        assert positions.given_up(connection, "a") == []
