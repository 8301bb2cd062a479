"""How far a sink has got and what it has given up, kept in the history's database."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, insert, select, update

from app.database.tables import deliveries, events, failed_deliveries
from app.feed import log

_COLUMNS = deliveries.columns


@dataclass(frozen=True)
class Position:
    """A sink's place in the events.

    Attributes:
        number: all up to this one has been delivered, or given up.
        attempted: what follows, up to this one, may have been delivered.
    """

    number: int
    attempted: int


@dataclass(frozen=True)
class FailedDelivery:
    """An event that a sink has given up.

    Attributes:
        sink: its name.
        number: of the event.
        failed_ms: when, milliseconds since 1970.
        reason: why, in words.
    """

    sink: str
    number: int
    failed_ms: int
    reason: str


def begin(connection: Connection, sink: str) -> Position:
    """A sink's position; a new sink begins after all that is there.

    Args:
        connection: of a transaction that may write.
        sink: its name.
    """
    query = select(_COLUMNS.number, _COLUMNS.attempted).where(_COLUMNS.sink == sink)
    row = connection.execute(query).one_or_none()
    if row is not None:
        return Position(*row)
    newest = log.newest(connection)
    connection.execute(insert(deliveries).values(sink=sink, number=newest, attempted=newest))
    return Position(newest, newest)


def move(connection: Connection, sink: str, position: Position) -> None:
    """Remember where a sink is."""
    values = {"number": position.number, "attempted": position.attempted}
    connection.execute(update(deliveries).where(_COLUMNS.sink == sink).values(values))


def give_up(connection: Connection, failed: FailedDelivery) -> None:
    """Remember that a sink has given an event up; once more, the latest reason counts."""
    column = failed_deliveries.c
    connection.execute(
        delete(failed_deliveries).where(column.sink == failed.sink, column.number == failed.number)
    )
    connection.execute(insert(failed_deliveries).values(asdict(failed)))


def given_up(connection: Connection, sink: str) -> Sequence[tuple[FailedDelivery, str]]:
    """What a sink has given up, the oldest first, with the data of each event."""
    column = failed_deliveries.c
    query = (
        select(failed_deliveries, events.c.data)
        .join_from(failed_deliveries, events, events.c.number == column.number)
        .where(column.sink == sink)
        .order_by(column.number)
    )
    return [(FailedDelivery(*row[:-1]), row[-1]) for row in connection.execute(query)]
