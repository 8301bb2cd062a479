"""The identity of a history, used in event cursors and in the MQTT client id."""

import uuid

from sqlalchemy import insert, select

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
    made = str(uuid.uuid4())
    with database.write() as connection:
        connection.execute(insert(identity).values(id=made))
    return made
