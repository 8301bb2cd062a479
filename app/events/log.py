"""The events of the service in its database, numbered in the order in which they were committed.

Ids of inspections cannot stand for that order: they are made before the journal, and what is older may be
filed later. Whoever has read up to a number finds everything else after it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from app.database.tables import events, failed_deliveries

Kind = Literal["inspection", "review", "model", "thresholds"]

_COLUMNS = events.columns
_ORDER_LOCK: Final = 4661784


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event before it has its number.

    Attributes:
        kind: what happened.
        category: what it was about.
        station: where the inspection was made, if it is about one.
        decision: of the inspection, if it is about one.
        data: what goes over the wire, JSON on one line.
    """

    kind: Kind
    category: str
    station: str | None
    decision: str | None
    data: str


@dataclass(frozen=True, slots=True)
class NumberedEvent(NewEvent):
    """An event in its place: later ones have greater numbers."""

    number: int


@dataclass(frozen=True, slots=True)
class EventSelector:
    """Which events are wanted: of one of these values in each column, None for all.

    An event without a station or decision is not wanted by whoever names one.
    """

    category: frozenset[str] | None = None
    station: frozenset[str] | None = None
    decision: frozenset[str] | None = None
    kind: frozenset[str] | None = None

    def admits(self, event: NewEvent) -> bool:
        """Whether an event is wanted."""
        return all(getattr(event, column) in values for column, values in self._asked())

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same in SQL."""
        return [_COLUMNS[column].in_(sorted(values)) for column, values in self._asked()]

    def _asked(self) -> Iterator[tuple[str, frozenset[str]]]:
        for column in ("category", "station", "decision", "kind"):
            if (values := getattr(self, column)) is not None:
                yield column, values


def append(connection: Connection, new: Sequence[NewEvent]) -> None:
    """Number what happens in this transaction; it is an event when that is committed.

    In PostgreSQL numbers are given before the commit: without the lock, which is held until then, a smaller
    number could appear after a greater one was read. SQLite has one writer at a time anyway.
    """
    if not new:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_ORDER_LOCK)))
    connection.execute(insert(events), [asdict(event) for event in new])


def read(
    connection: Connection,
    after: int,
    limit: int,
    wanted: EventSelector | None = None,
    until: int | None = None,
) -> list[NumberedEvent]:
    """The oldest events after a number, in their order.

    Args:
        connection: where to read.
        after: a number.
        limit: how many at most.
        wanted: which of them; None for all.
        until: the last number to look at; None for all. Where hardly any are wanted, it bounds the time.
    """
    conditions = [] if wanted is None else wanted.conditions()
    if until is not None:
        conditions.append(_COLUMNS.number <= until)
    query = select(events).where(_COLUMNS.number > after, *conditions).order_by(_COLUMNS.number).limit(limit)
    return [NumberedEvent(**row) for row in connection.execute(query).mappings()]


def newest_number(connection: Connection) -> int:
    """The number of the newest event; 0 where there is none."""
    return connection.scalar(select(func.max(_COLUMNS.number))) or 0


def last_deleted(connection: Connection) -> int:
    """Events up to this number are no longer kept; all later ones are."""
    oldest = connection.scalar(select(func.min(_COLUMNS.number)))
    return 0 if oldest is None else oldest - 1


def trim(connection: Connection, keep: int, most: int) -> int:
    """Delete all but the newest events, and what is known of their failed deliveries.

    Args:
        connection: of a transaction that may write.
        keep: how many stay, at least 1: the newest one's number is where the next goes on.
        most: that are deleted now.

    Returns:
        How many were deleted.
    """
    end = min(newest_number(connection) - keep, last_deleted(connection) + most)
    connection.execute(delete(failed_deliveries).where(failed_deliveries.c.number <= end))
    return connection.execute(delete(events).where(_COLUMNS.number <= end)).rowcount
