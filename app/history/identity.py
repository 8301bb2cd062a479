"""The identity of a history: cursors of events and the client of a broker are made of it."""

import uuid

from sqlalchemy import insert, select

from app.database.engine import Database
from app.database.tables import identity


def read_identity(database: Database) -> str | None:
    """The identity of a database with all tables, None where no server has used it."""
    with database.read() as connection:
        found: str | None = connection.scalar(select(identity.c.id))
    return found


def ensure_identity(database: Database) -> str:
    """The identity of a database with all tables, made where there is none."""
    if (known := read_identity(database)) is not None:
        return known
    made = str(uuid.uuid4())
    with database.write() as connection:
        connection.execute(insert(identity).values(id=made))
    return made
