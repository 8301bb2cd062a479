from app.database.engine import Database
from app.feed import log
from app.feed.log import Happening
from app.sinks import positions
from app.sinks.positions import Position


def test_a_new_sink_begins_after_what_is_there_and_stays_where_it_was(database: Database) -> None:
    with database.write() as connection:
        assert positions.begin(connection, "a") == Position(0, 0)
        log.append(connection, [Happening("inspection", "bottle", None, "PASS", "{}")] * 3)
    with database.write() as connection:
        newest = log.newest(connection)
        assert positions.begin(connection, "a") == Position(0, 0)
        assert positions.begin(connection, "b") == Position(newest, newest)
        positions.move(connection, "a", Position(2, 3))
    with database.write() as connection:
        assert positions.begin(connection, "a") == Position(2, 3)
        assert positions.begin(connection, "b") == Position(newest, newest)
