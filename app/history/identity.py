"""The identity of a history, used in event cursors and in the MQTT client id; the mark of its store."""

import uuid
from contextlib import suppress
from typing import Final

from sqlalchemy import insert, select, text, update

from app.database.engine import Database
from app.database.tables import identity
from app.storage.store import Store
from app.storage.urls import StoreError

_MARK: Final = "history"  # the file of a store that names the history it belongs to


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


def require_store(database: Database, store: Store | None, history: str) -> None:
    """Mark the store of a history at its first use, and refuse any other store, or none, later.

    Raises:
        StoreError: the message says why.
        StoreUnavailable: the store does not answer.
    """
    has_store = identity.c.has_store
    if store is None:
        with database.read() as connection:
            if connection.scalar(select(has_store)):
                raise StoreError("it is not set, but other servers of the database have a store")
        return
    with database.write() as connection:
        # Others wait for the commit, and find the mark.
        if connection.execute(update(identity).where(~has_store).values(has_store=True)).rowcount:
            with suppress(FileExistsError):
                store.create(_MARK, history.encode())
    try:
        found = store.read(_MARK).decode()
    except FileNotFoundError:
        raise StoreError(
            f"the database has another store: set that one, or copy its files, among them {_MARK!r}, to this"
        ) from None
    if found != history:
        raise StoreError("it belongs to another database; use an empty store")
