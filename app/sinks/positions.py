"""How far a sink has got, kept in the history's database."""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from app.database.tables import deliveries
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
