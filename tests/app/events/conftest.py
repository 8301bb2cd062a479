"""The database of a history, for tests of events."""

import pytest
from sqlalchemy import insert

from app.database.engine import Database
from app.database.tables import identity


@pytest.fixture
def database(database: Database) -> Database:
    """An empty database with the identity of a history."""
    with database.write() as connection:
        connection.execute(insert(identity).values(id="6b1e6f5e-6f0e-4a53-9a6a-3f9c1d2b7a10"))
    return database
