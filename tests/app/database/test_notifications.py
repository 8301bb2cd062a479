import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from sqlalchemy import text

from app.database import locks
from app.database.engine import Database
from app.database.notifications import Notifications, Topic, notify
from tests.support.postgres import Postgres
from tests.support.waiting import eventually

FOREVER = 1e6


@contextmanager
def listening(database: Database, *topics: Topic) -> Iterator[list[Topic]]:
    """Collect the topics of the calls; yield after the first call of each, with an empty list."""
    calls: list[Topic] = []
    notifications = Notifications(database)
    for topic in topics:
        notifications.on(topic, partial(calls.append, topic))
    notifications.start()
    eventually(lambda: len(calls) >= len(topics))
    calls.clear()
    yield calls
    notifications.close()


def send(database: Database, topic: Topic) -> None:
    with database.write() as connection:
        notify(connection, topic)


def test_commit_calls_back_on_its_topic(postgres_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.database.notifications.POLL_SECONDS", FOREVER)
    with listening(postgres_database, "keys", "models") as calls:
        with postgres_database.write() as connection:
            notify(connection, "models")
            send(postgres_database, "keys")
            eventually(lambda: calls == ["keys"])
        eventually(lambda: calls == ["keys", "models"])


def test_rollback_notifies_nobody(postgres_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.database.notifications.POLL_SECONDS", FOREVER)
    with listening(postgres_database, "keys", "models") as calls:
        with postgres_database.write() as connection:
            notify(connection, "keys")
            connection.rollback()
        send(postgres_database, "models")
        eventually(lambda: calls == ["models"])


def test_all_are_called_without_a_notification(postgres_database: Database) -> None:
    with listening(postgres_database, "keys", "models") as calls:
        eventually(lambda: calls[:4] == ["keys", "models"] * 2)


def test_lost_connection_polls_and_reconnects(
    postgres: Postgres,
    postgres_database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("app.database.notifications.POLL_SECONDS", 0.05)
    with listening(postgres_database, "keys") as calls:
        postgres.stop()
        try:
            eventually(lambda: "polling" in caplog.text)
            calls.clear()
            eventually(lambda: len(calls) > 1)
        finally:
            postgres.start()
        eventually(lambda: "notified again" in caplog.text)
        monkeypatch.setattr("app.database.notifications.POLL_SECONDS", FOREVER)
        send(postgres_database, "keys")
        calls.clear()
        send(postgres_database, "keys")
        eventually(lambda: "keys" in calls)


def test_failing_callback_is_logged_once_and_called_again(
    postgres_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []

    def fail() -> None:
        seen.append(0)
        raise ValueError("no such thing")

    notifications = Notifications(postgres_database)
    notifications.on("keys", fail)
    notifications.start()
    eventually(lambda: len(seen) == 1)
    send(postgres_database, "keys")
    eventually(lambda: len(seen) >= 2)
    notifications.close()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_sqlite_starts_no_thread(database: Database) -> None:
    before = threading.active_count()
    notifications = Notifications(database)
    notifications.start()
    send(database, "keys")
    assert threading.active_count() == before
    notifications.close()


def test_lock_excludes_until_the_commit(each_database: Database) -> None:
    """SQLite excludes the other writer anyway."""
    order = []

    def second() -> None:
        with each_database.write() as connection:
            locks.take(connection, locks.MODELS, "bottle")
            order.append("second")

    thread = threading.Thread(target=second)
    with each_database.write() as connection:
        locks.take(connection, locks.MODELS, "bottle")
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_names_and_shared_locks_exclude_nothing(postgres_database: Database) -> None:
    with postgres_database.write() as one, postgres_database.write() as other:
        other.execute(text("SET lock_timeout = '1ms'"))
        locks.take(one, locks.MODELS)
        locks.take(one, locks.MODELS, "bottle")
        locks.take(other, locks.MODELS, "screw")
        locks.take(one, locks.FILES, shared=True)
        locks.take(other, locks.FILES, shared=True)
