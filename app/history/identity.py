"""The identity of a history, used in event cursors and in the MQTT client id."""

import uuid

from sqlalchemy import insert, select, text

from app.database.engine import Database
from app.database.tables import identity


def read_identity(database: Database) -> str | None:
    """Read the identity of an upgraded database; None if no server has used it."""
    with database.read() as connection:
        found: str | None = connection.scalar(select(identity.c.id))
    return found


def ensure_identity(database: Database) -> str:
    """Read the identity of an upgraded database, or create one."""
    if (known := read_identity(database)) is not None:
        return known
    with database.write() as connection:
        if not database.is_sqlite:  # servers that start together agree on one; SQLite has one writer anyway
            connection.execute(text("LOCK TABLE identity IN EXCLUSIVE MODE"))
        other: str | None = connection.scalar(select(identity.c.id))
        made = other or str(uuid.uuid4())
        if other is None:
            connection.execute(insert(identity).values(id=made))
    return made
