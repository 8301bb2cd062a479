"""Browser sessions, which stand for a key: images and event streams of a page send no headers.

A session is 256 random bits in a cookie; the database stores their SHA-256. It is valid as long as the key
that opened it, and no longer than its own time.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select

from app.auth.key_store import sha256
from app.database import clock
from app.database.engine import Database
from app.database.notifications import notify
from app.database.tables import sessions

COOKIE: Final = "flowgauge_session"
CSRF_HEADER: Final = "X-CSRF-Token"


class SessionStore:
    """The sessions in the database. Safe to use from several threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, key_id: str, hours: float) -> str:
        """Open a session and delete expired ones.

        Returns:
            The session's secret.
        """
        secret = secrets.token_urlsafe(32)
        now = clock.now_ms()
        row = {
            "secret_sha256": sha256(secret),
            "key_id": key_id,
            "created_ms": now,
            "expires_ms": now + round(hours * 3_600_000),
        }
        with self._database.write() as connection:
            connection.execute(insert(sessions).values(row))
            notify(connection, "keys")
            connection.execute(delete(sessions).where(sessions.c.expires_ms <= now))
        return secret

    def close(self, secret: str) -> None:
        """End a session, if it exists."""
        with self._database.write() as connection:
            connection.execute(delete(sessions).where(sessions.c.secret_sha256 == sha256(secret)))
            notify(connection, "keys")


def read_all(connection: Connection) -> Sequence[Row[Any]]:
    """Read all sessions, including expired ones that are not yet deleted."""
    return connection.execute(select(sessions)).all()


def csrf_token(secret: str) -> str:
    """Derive the CSRF token of a session from its secret. A write with a session must carry it."""
    digest = hmac.digest(secret.encode(), b"flowgauge csrf token", hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
