import time
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.database import clock


@pytest.fixture(autouse=True)
def _own_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the clock after each test."""
    monkeypatch.setattr(clock, "_last", 0)


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Set the clock ahead by the milliseconds in the list."""
    ahead = [0]
    original = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: original() + ahead[0] * 1_000_000)
    return ahead


def test_ids_are_of_version_7_with_their_time() -> None:
    before = clock.now_ms()
    identifier = clock.new_id()
    assert uuid.UUID(identifier).version == 7
    assert uuid.UUID(identifier).variant == uuid.RFC_4122
    assert before <= clock.id_to_ms(identifier) <= clock.now_ms()


def test_ids_increase() -> None:
    ids = [clock.new_id() for _ in range(20_000)]
    assert ids == sorted(set(ids))


def test_ids_increase_when_the_clock_is_corrected(set_clock: list[int]) -> None:
    first = clock.new_id()
    set_clock[0] = -9000
    assert clock.new_id() > first


def test_ids_restart_after_a_clock_far_ahead(set_clock: list[int]) -> None:
    set_clock[0] = 365 * 24 * 3_600_000
    ahead = clock.new_id()
    set_clock[0] = 0
    ids = [clock.new_id() for _ in range(3)]
    assert ids == sorted(ids)
    assert ids[-1] < ahead
    assert clock.id_to_ms(ids[-1]) <= clock.now_ms() + 1


def test_first_id_of_a_time_sorts_before_its_ids() -> None:
    identifier = clock.new_id()
    at_ms = clock.id_to_ms(identifier)
    assert clock.first_id(at_ms) <= identifier < clock.first_id(at_ms + 1)
    assert clock.first_id(-5) == clock.first_id(0)


def test_time_is_formatted() -> None:
    assert clock.iso(1_795_569_300_123) == "2026-11-25T01:15:00.123Z"
    assert clock.iso(0) == "1970-01-01T00:00:00.000Z"


def test_datetime_is_converted() -> None:
    moment = datetime(2026, 11, 25, 1, 15, tzinfo=UTC)
    expected = 1_795_569_300_000
    assert clock.from_datetime(moment) == expected
    assert clock.from_datetime(moment.replace(tzinfo=None)) == expected
    assert clock.from_datetime(moment.astimezone(timezone(timedelta(hours=9)))) == expected
