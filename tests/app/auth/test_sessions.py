import pytest
from sqlalchemy import select, update

from app.auth.key_store import KeyStore, sha256
from app.auth.permissions import COMMAND_LINE
from app.auth.sessions import SessionStore, csrf_token, read_all
from app.database import tables
from app.database.engine import Database
from app.schemas.access import Role


@pytest.fixture
def key_id(database: Database) -> str:
    return KeyStore(database).create(COMMAND_LINE, Role.VIEWER, "name")[0].id


def kept(database: Database) -> set[str]:
    with database.read() as connection:
        return {session.secret_sha256 for session in read_all(connection)}


def test_secret_is_not_stored(database: Database, key_id: str) -> None:
    secret = SessionStore(database).open(key_id, 12)
    assert len(secret) == 43
    assert kept(database) == {sha256(secret)}
    with database.read() as connection:
        [row] = connection.execute(select(tables.sessions))
    assert secret not in str(row)
    assert csrf_token(secret) not in str(row)
    assert row.expires_ms - row.created_ms == 12 * 60 * 60 * 1000


def test_close_ends_only_one_session(database: Database, key_id: str) -> None:
    sessions = SessionStore(database)
    one, other = sessions.open(key_id, 1), sessions.open(key_id, 1)
    sessions.close(one)
    sessions.close(one)
    sessions.close("there is none")
    assert kept(database) == {sha256(other)}


def test_login_deletes_expired_sessions(database: Database, key_id: str) -> None:
    sessions = SessionStore(database)
    sessions.open(key_id, 1)
    with database.write() as connection:
        connection.execute(update(tables.sessions).values(expires_ms=1))
    latest = sessions.open(key_id, 1)
    assert kept(database) == {sha256(latest)}
