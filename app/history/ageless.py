"""Inspections whose ids do not tell their age, because the clock was behind when they were made.

After a power cut a mainboard with a dead battery says 2000, and so do the ids of what is inspected then: by
them, all of it would be 26 years old as soon as the clock is right. Such an inspection is known by an id that
is earlier than FlowGauge itself, or by one that was filed before it and has an id of more than an hour later.

That one may be wrong itself, made while the clock was ahead. Nothing tells the two apart: what is filed has
an id of about now, so an earlier one from the future looks the same as a clock that has gone back. Then what
comes until that time has no age either, which keeps it for no shorter a time than was asked for.

It grows older while a server runs, from when retention saw it first, whatever the clocks say. So it stays for
longer than others, by the pauses of the line, and never for less.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, update

from app.database.clock import first_id, time_of
from app.database.tables import inspections, watch
from app.history.rates import DECISIONS

_COLUMNS = inspections.columns
_TOLERATED_MS: Final = 3_600_000
# 2026-01-01, UTC: FlowGauge is younger, so nothing was inspected with it before. On a new station whose clock
# was never set there is no later id to tell. Revision 0003 of the database has the same.
EARLIEST_MS: Final = 1_767_225_600_000


def mark(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Set `seen_ms` of rows that are going to be filed.

    Args:
        connection: of the transaction that files them.
        rows: of the table `inspections`, in their order.
    """
    newest = connection.scalar(select(func.max(_COLUMNS.id))) or first_id(0)
    for row in rows:
        newest = max(newest, row["id"])
        credible = first_id(max(EARLIEST_MS, time_of(newest) - _TOLERATED_MS))
        row["seen_ms"] = 0 if row["id"] < credible else None


def let_pass(connection: Connection, passed_ms: int) -> int:
    """Let inspections without an age grow older.

    Args:
        connection: of a transaction that may write.
        passed_ms: since this was done last, as far as this process has run.

    Returns:
        What time it is for them, in milliseconds; 0 where there are none.
    """
    if connection.scalar(select(_COLUMNS.id).where(_COLUMNS.seen_ms.is_not(None)).limit(1)) is None:
        return 0
    before = connection.scalar(select(watch.c.ran_ms))
    if before is None:
        ran_ms = 1  # 0 stands for what was not seen yet
        connection.execute(insert(watch).values(ran_ms=ran_ms))
    else:
        ran_ms = before + passed_ms
        connection.execute(update(watch).values(ran_ms=ran_ms))
    unseen = _COLUMNS.decision.in_(DECISIONS), _COLUMNS.seen_ms == 0
    connection.execute(update(inspections).where(*unseen).values(seen_ms=ran_ms))
    return ran_ms
