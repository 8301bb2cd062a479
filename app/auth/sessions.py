"""Sessions: what a browser has instead of a key, because pictures and event feeds send no headers.

A session is 256 random bits in a cookie; kept is their SHA-256. It says which key was exchanged for it, and
is worth no more than that key: revoked or expired, it takes its sessions along.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select

from app.auth.keys import sha256
from app.database import clock
from app.database.engine import Database
from app.database.tables import sessions

COOKIE: Final = "flowgauge_session"
CSRF_HEADER: Final = "X-CSRF-Token"


class SessionStore:
    """The sessions in the database. May be used from several threads and processes at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, key_id: str, hours: float) -> str:
        """Begin a session, and delete those that have expired.

        Args:
            key_id: the key that came.
            hours: for how long it is valid.

        Returns:
            Its secret.
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
            connection.execute(delete(sessions).where(sessions.c.expires_ms <= now))
        return secret

    def close(self, secret: str) -> None:
        """End a session; one that there is not has ended already."""
        with self._database.write() as connection:
            connection.execute(delete(sessions).where(sessions.c.secret_sha256 == sha256(secret)))


def read_all(connection: Connection) -> Sequence[Row[Any]]:
    """All sessions, also those that have expired and are not yet deleted."""
    return connection.execute(select(sessions)).all()


def csrf_token(secret: str) -> str:
    """The token that a write with a session must carry; only who knows the session's secret can make it."""
    digest = hmac.digest(secret.encode(), b"flowgauge csrf token", hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
