"""Positions and failed deliveries of sinks, in the history's database."""

from sqlalchemy import Connection, delete, insert, select, update

from app.database import clock
from app.database.tables import deliveries, events, failed_deliveries
from app.events import log

_COLUMNS = deliveries.c


def begin(connection: Connection, sink: str) -> int:
    """Return a sink's position, in a write transaction; a new one starts after the newest event."""
    number: int | None = connection.scalar(select(_COLUMNS.number).where(_COLUMNS.sink == sink))
    if number is None:
        number = log.newest_number(connection)
        connection.execute(insert(deliveries).values(sink=sink, number=number))
    return number


def move(connection: Connection, sink: str, number: int) -> None:
    """Store that a sink's events up to a number were delivered or given up; never an earlier number."""
    earlier = _COLUMNS.sink == sink, _COLUMNS.number < number
    connection.execute(update(deliveries).where(*earlier).values(number=number))


def give_up(connection: Connection, sink: str, number: int, reason: str) -> None:
    """Store that a sink gave up an event, and the reason. A later reason replaces an earlier one."""
    column = failed_deliveries.c
    connection.execute(delete(failed_deliveries).where(column.sink == sink, column.number == number))
    values = {"sink": sink, "number": number, "failed_ms": clock.now_ms(), "reason": reason}
    connection.execute(insert(failed_deliveries).values(values))


def given_up(connection: Connection, sink: str) -> list[tuple[int, str, str]]:
    """Return the events that a sink gave up, the oldest first, as (failed_ms, reason, event data)."""
    column = failed_deliveries.c
    query = (
        select(column.failed_ms, column.reason, events.c.data)
        .join_from(failed_deliveries, events, events.c.number == column.number)
        .where(column.sink == sink)
        .order_by(column.number)
    )
    return [(row.failed_ms, row.reason, row.data) for row in connection.execute(query)]
