"""The inspections that all servers file, in the order of their commits."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import select

from app.database.engine import Database
from app.database.tables import inspections
from app.events import log
from app.events.feed import Feed
from app.events.log import EventSelector

logger = logging.getLogger("flowgauge.history")

_INSPECTIONS: Final = EventSelector(kind=frozenset({"inspection"}))
_PAGE: Final = 500
_PAUSE_SECONDS: Final = 0.5  # so that many inspections are read at once
_NAMES: Final = (
    *("id", "category", "station", "version", "precision", "score", "features", "image_bytes", "map_bytes"),
)

Rows = Sequence[dict[str, Any]]


async def follow_filed(database: Database, feed: Feed, callbacks: Sequence[Callable[[Rows], None]]) -> None:
    """Call back with the inspections that are filed from now on, in a thread, until cancelled.

    The first call comes at once, maybe without any.
    """
    position = feed.position
    while True:
        try:
            after, rows = await asyncio.to_thread(_read, database, position)
            for callback in callbacks:
                await asyncio.to_thread(callback, rows)
            position = after
        except Exception:  # whatever it is, later inspections count
            logger.exception("cannot follow the inspections of all servers; trying again")
        await asyncio.sleep(_PAUSE_SECONDS)
        await feed.wait(position)


def _read(database: Database, position: int) -> tuple[int, Rows]:
    """Read the inspections of the next events, and the position after them."""
    with database.read() as connection:
        newest = log.newest_number(connection)
        page = log.read(connection, position, _PAGE, _INSPECTIONS)
        ids = [json.loads(event.data)["inspection_id"] for event in page]
        columns = (inspections.c[name] for name in _NAMES)
        query = select(*columns).where(inspections.c.id.in_(ids))
        found = {row["id"]: dict(row) for row in connection.execute(query).mappings()}
    # Retention may have deleted some already.
    rows = [found[identifier] for identifier in ids if identifier in found]
    return (page[-1].number if len(page) == _PAGE else newest), rows
