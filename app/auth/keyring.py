"""The keys and sessions in memory: a request is authenticated without asking the database."""

import hmac
import logging
import re
import threading
from typing import Any, Final

from sqlalchemy import Row

from app.auth import keys, sessions
from app.auth.keys import ApiKey
from app.database import clock
from app.database.engine import Database
from app.errors.problems import Problem

logger = logging.getLogger("flowgauge.keys")

# What was changed from a command line or by another server is seen within so many seconds.
RELOAD_SECONDS: Final = 2.0


class Keyring:
    """A copy of the keys and sessions, brought up to date in the background once it is started.

    When the database cannot be read, the last copy stays and the log says so. A service that has ever seen
    a key asks for one until it stops, even if the database should be empty later.

    Args:
        database: its tables are there.

    Attributes:
        required: whether a request must come with a key: as soon as there is one, even if it is revoked.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: dict[str, ApiKey] = {}  # by id
        self._sessions: dict[str, Row[Any]] = {}  # by the secret's SHA-256
        self.required = False
        self._reading = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_reloading, name="keyring", daemon=True)
        self.reload()

    def start(self) -> None:
        """Begin to reload in the background."""
        self._thread.start()

    def close(self) -> None:
        """Stop reloading."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def reload(self) -> None:
        """Read what is in the database now."""
        # One at a time: an older copy must not take the place of one with a revocation in it.
        with self._reading:
            with self._database.read() as connection:
                self._keys = {key.id: key for key in keys.read_all(connection)}
                self._sessions = {one.secret_sha256: one for one in sessions.read_all(connection)}
            self.required = self.required or bool(self._keys)

    def require_key(self, text: str) -> ApiKey:
        """The key that a text is.

        Raises:
            Problem: unauthenticated. That it was revoked or has expired learns only who has the secret.
        """
        parts = re.fullmatch(keys.PATTERN, text)
        if parts is None:
            raise Problem("unauthenticated", "What came is no key: keys are fg_, 16 digits, _ and a secret.")
        key_id, secret = parts.groups()
        key = self._keys.get(key_id)
        if key is None or not hmac.compare_digest(keys.sha256(secret), key.secret_sha256):
            raise Problem("unauthenticated", "There is no such key.")
        if fault := key.invalid_reason(clock.now_ms()):
            raise Problem("unauthenticated", f"The key {key_id} {fault}. Ask an administrator for another.")
        return key

    def require_session(self, secret: str) -> ApiKey:
        """The key that a session was opened with.

        Raises:
            Problem: unauthenticated.
        """
        session = self._sessions.get(keys.sha256(secret))
        key = None if session is None else self._keys.get(session.key_id)
        now = clock.now_ms()
        if session is None or key is None or now >= session.expires_ms or key.invalid_reason(now):
            raise Problem("unauthenticated", "The session has ended. Log in again.")
        return key

    def _keep_reloading(self) -> None:
        failing = False
        while not self._stopping.wait(RELOAD_SECONDS):
            try:
                self.reload()
            except Exception:
                if not failing:
                    logger.exception("the keys cannot be read; those known stay, changes are not seen")
                failing = True
            else:
                if failing:
                    logger.warning("the keys can be read again")
                failing = False
