"""The log of events in the database, numbered in the order of commits.

Ids of inspections do not give that order: they are made before the journal entry, and an older inspection may
be filed later. A reader that has read up to a number finds all other events after it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from app.database import locks
from app.database.notifications import notify
from app.database.tables import events, failed_deliveries

Kind = Literal["inspection", "review", "model", "thresholds"]

_COLUMNS = events.columns


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event before it has its number.

    Attributes:
        station: of the inspection, if it concerns one.
        decision: of the inspection, if it concerns one.
        data: JSON on one line, as sent to clients and sinks.
    """

    kind: Kind
    category: str
    station: str | None
    decision: str | None
    data: str


@dataclass(frozen=True, slots=True)
class NumberedEvent(NewEvent):
    """An event in the log; later events have greater numbers."""

    number: int


@dataclass(frozen=True, slots=True)
class EventSelector:
    """A filter of events: one of the given values in each column, None for all.

    An event without a station or decision does not match a filter that names one.
    """

    category: frozenset[str] | None = None
    station: frozenset[str] | None = None
    decision: frozenset[str] | None = None
    kind: frozenset[str] | None = None

    def matches(self, event: NewEvent) -> bool:
        return all(getattr(event, column) in values for column, values in self._constraints())

    def conditions(self) -> list[ColumnElement[bool]]:
        return [_COLUMNS[column].in_(sorted(values)) for column, values in self._constraints()]

    def _constraints(self) -> Iterator[tuple[str, frozenset[str]]]:
        for column in ("category", "station", "decision", "kind"):
            if (values := getattr(self, column)) is not None:
                yield column, values


def append(connection: Connection, new: Sequence[NewEvent]) -> None:
    """Append events in a transaction; they become visible with its commit, and wake all servers' feeds.

    PostgreSQL assigns numbers before the commit. Without the lock, which lasts until the commit, a smaller
    number could appear after a greater one was read. SQLite has one writer at a time.
    """
    if not new:
        return
    locks.take(connection, locks.EVENT_ORDER)
    connection.execute(insert(events), [asdict(event) for event in new])
    notify(connection, "events")


def read(
    connection: Connection,
    after: int,
    limit: int,
    selector: EventSelector | None = None,
    until: int | None = None,
) -> list[NumberedEvent]:
    """Read the oldest events after a number, in order.

    Args:
        selector: selects the events; None for all.
        until: the last number to scan; None for no limit. It bounds the time if few events match.
    """
    conditions = [] if selector is None else selector.conditions()
    if until is not None:
        conditions.append(_COLUMNS.number <= until)
    query = select(events).where(_COLUMNS.number > after, *conditions).order_by(_COLUMNS.number).limit(limit)
    return [NumberedEvent(**row) for row in connection.execute(query).mappings()]


def newest_number(connection: Connection) -> int:
    """Return the number of the newest event; 0 if there is none."""
    return connection.scalar(select(func.max(_COLUMNS.number))) or 0


def last_deleted(connection: Connection) -> int:
    """Return the number of the last deleted event; all later ones are stored."""
    oldest = connection.scalar(select(func.min(_COLUMNS.number)))
    return 0 if oldest is None else oldest - 1


def trim(connection: Connection, keep: int, limit: int) -> int:
    """Delete the oldest events and their failed deliveries, in a write transaction.

    Args:
        keep: number of newest events to keep, at least 1: the next number follows the newest one's.
        limit: maximum number of events to delete now.
    """
    end = min(newest_number(connection) - keep, last_deleted(connection) + limit)
    connection.execute(delete(failed_deliveries).where(failed_deliveries.c.number <= end))
    return connection.execute(delete(events).where(_COLUMNS.number <= end)).rowcount
