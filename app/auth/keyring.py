"""Keys and sessions in memory, so that a request is authenticated without a query."""

import asyncio
import hmac
import logging
import re
import threading
from typing import Any, Final

from sqlalchemy import Row

from app.auth import key_store, sessions
from app.auth.key_store import ApiKey
from app.database import clock
from app.database.engine import Database
from app.errors.problems import Problem

logger = logging.getLogger("flowgauge.keys")

# Changes that nobody notifies take effect within this time.
RELOAD_SECONDS: Final = 2.0
# Least time between two reloads for unknown callers: a flood of wrong keys must not load the database.
LOOKUP_SECONDS: Final = 0.25


class UnknownCredentials(Problem):
    """The problem unauthenticated, for a key or session that is not in memory."""

    def __init__(self, detail: str) -> None:
        super().__init__("unauthenticated", detail)


class Keyring:
    """A copy of the keys and sessions, reloaded in the background.

    If the database cannot be read, the last copy stays in use and the log says so. A service that has seen a
    key requires one until it stops, even if the database is empty later.

    Attributes:
        required: True if requests need a key: as soon as one exists, even a revoked one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: dict[str, ApiKey] = {}  # by id
        self._sessions: dict[str, Row[Any]] = {}  # by the secret's SHA-256
        self.required = False
        self._reading = threading.Lock()
        self._news = threading.Event()
        self._is_stopping = False
        self._lookup: asyncio.Task[None] | None = None  # that has not begun
        self._looking_up = asyncio.Lock()
        self._next_lookup = 0.0  # time of the event loop
        self._thread = threading.Thread(target=self._keep_reloading, name="keyring", daemon=True)
        self.reload()

    def start(self) -> None:
        """Start to reload in the background."""
        self._thread.start()

    def close(self) -> None:
        """Stop reloading."""
        self._is_stopping = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Reload now in the background; a callback of the notifications."""
        self._news.set()

    async def look_up(self) -> None:
        """Reload for a caller whose credentials are unknown here: another server may just have made them.

        All who wait share a reload. SQLite has one server, which knows its own.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """
        if self._database.is_sqlite:
            return
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._reload_soon())
        await asyncio.shield(self._lookup)

    async def _reload_soon(self) -> None:
        async with self._looking_up:
            now = asyncio.get_running_loop().time
            await asyncio.sleep(self._next_lookup - now())
            self._next_lookup = now() + LOOKUP_SECONDS
            self._lookup = None  # whoever comes from now on needs a later one
            await asyncio.to_thread(self.reload)

    def reload(self) -> None:
        # Serialised: an older copy must not replace one that has a revocation.
        with self._reading:
            with self._database.read() as connection:
                self._keys = {key.id: key for key in key_store.read_all(connection)}
                self._sessions = {session.secret_sha256: session for session in sessions.read_all(connection)}
            self.required = self.required or bool(self._keys)

    def require_key(self, text: str) -> ApiKey:
        """Return the key that a text is.

        Raises:
            Problem: unauthenticated. Only the right secret reveals that a key was revoked or has expired.
            UnknownCredentials: there is no such key in memory.
        """
        parts = re.fullmatch(key_store.PATTERN, text)
        if parts is None:
            raise Problem("unauthenticated", "This is no key: a key is fg_, 16 digits, _ and a secret.")
        key_id, secret = parts.groups()
        key = self._keys.get(key_id)
        if key is None or not hmac.compare_digest(key_store.sha256(secret), key.secret_sha256):
            raise UnknownCredentials("There is no such key.")
        if reason := key.invalid_reason(clock.now_ms()):
            raise Problem("unauthenticated", f"The key {key_id} {reason}. Ask an administrator for another.")
        return key

    def require_session(self, secret: str) -> ApiKey:
        """Return the key of a session.

        Raises:
            Problem: unauthenticated.
            UnknownCredentials: there is no such session in memory.
        """
        session = self._sessions.get(key_store.sha256(secret))
        key = None if session is None else self._keys.get(session.key_id)
        ended = "The session has ended. Log in again."
        if session is None or key is None:
            raise UnknownCredentials(ended)
        now = clock.now_ms()
        if now >= session.expires_ms or key.invalid_reason(now):
            raise Problem("unauthenticated", ended)
        return key

    def _keep_reloading(self) -> None:
        is_failing = False
        while True:
            self._news.wait(RELOAD_SECONDS)
            self._news.clear()
            if self._is_stopping:
                return
            try:
                self.reload()
            except Exception:
                if not is_failing:
                    logger.exception("cannot read the keys; known keys stay valid, changes have no effect")
                is_failing = True
            else:
                if is_failing:
                    logger.warning("the keys can be read again")
                is_failing = False
