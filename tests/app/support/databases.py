"""Databases without a service."""

from pathlib import Path

from sqlalchemy import insert

from app.database.engine import Database
from app.database.tables import identity


def create_database(folder: Path) -> Database:
    """Create a history's database with all tables and an identity."""
    database = Database(f"sqlite:///{folder / 'history.sqlite'}")
    database.upgrade()
    with database.write() as connection:
        connection.execute(insert(identity).values(id="6b1e6f5e-6f0e-4a53-9a6a-3f9c1d2b7a10"))
    return database
