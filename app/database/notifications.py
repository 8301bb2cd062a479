"""Notifications of committed changes from server to server, by LISTEN and NOTIFY of PostgreSQL."""

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import Connection, func, select

from app.database.engine import Database

if TYPE_CHECKING:
    import psycopg

logger = logging.getLogger("flowgauge.notifications")

Topic = Literal["deletions", "events", "jobs", "keys", "models"]

POLL_SECONDS: Final = 1.0
_CHANNEL: Final = "flowgauge"


def notify(connection: Connection, topic: Topic) -> None:
    """Notify all servers when the transaction commits, this one included; no-op on SQLite."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(_CHANNEL, topic)))


class Notifications:
    """A thread that calls back when another server has changed something.

    A callback runs on a notification of its topic, and at least every `POLL_SECONDS`: a notification can be
    lost with its connection. So a call says that there may be news. Callbacks run one after another and
    should return soon. An exception is logged, and the callback is called again later.

    On SQLite there is one server, so nothing is started and no callback is called.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._callbacks: list[tuple[Topic, Callable[[], object]]] = []
        self._failing: set[Callable[[], object]] = set()
        self._stopping = False
        self._stop_reader: socket.socket
        self._stop_writer: socket.socket
        self._thread = threading.Thread(target=self._run, name="notifications", daemon=True)

    def on(self, topic: Topic, callback: Callable[[], object]) -> None:
        """Call back on news of a topic. Call it before `start`."""
        self._callbacks.append((topic, callback))

    def start(self) -> None:
        if not self._database.is_sqlite:
            self._stop_reader, self._stop_writer = socket.socketpair()
            self._thread.start()

    def close(self) -> None:
        """Stop, once a running callback has returned."""
        self._stopping = True
        if self._thread.is_alive():
            self._stop_writer.close()
            self._thread.join()
            self._stop_reader.close()

    def _run(self) -> None:
        # Imported here: only PostgreSQL needs it.
        import psycopg

        is_lost = False
        while not self._stopping:
            try:
                with self._database.connect() as connection:
                    connection.execute(f"LISTEN {_CHANNEL}")
                    if is_lost:
                        logger.warning("other servers' changes are notified again")
                    is_lost = False
                    self._listen(connection)
            except psycopg.Error as error:
                if not is_lost:
                    logger.warning("no notifications of other servers' changes; polling: %s", error)
                is_lost = True
                self._call()
                self._wait(None, time.monotonic() + POLL_SECONDS)

    def _listen(self, connection: "psycopg.Connection") -> None:
        """Call back until `close`, or until the connection is lost."""
        due = 0.0  # at once: there may be news from before LISTEN
        topics: set[str] = set()
        while not self._stopping:
            if time.monotonic() >= due:
                self._call()
                due = time.monotonic() + POLL_SECONDS
            else:
                self._call(topics)
            self._wait(connection, due)
            connection.pgconn.consume_input()
            topics = set()
            while (notification := connection.pgconn.notifies()) is not None:
                topics.add(notification.extra.decode())

    def _wait(self, connection: "psycopg.Connection | None", due: float) -> None:
        """Wait for the connection, `close` or a time, whatever comes first."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stop_reader, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.select(max(0.0, due - time.monotonic()))

    def _call(self, topics: set[str] | None = None) -> None:
        """Call the callbacks of topics; None for all."""
        for topic, callback in self._callbacks:
            if self._stopping or (topics is not None and topic not in topics):
                continue
            try:
                callback()
            except Exception:
                if callback not in self._failing:
                    logger.exception("cannot follow changes of %s; trying again", topic)
                self._failing.add(callback)
            else:
                self._failing.discard(callback)
