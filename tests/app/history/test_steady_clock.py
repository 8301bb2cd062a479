import logging

import pytest

from app.history.steady_clock import SteadyClock

HOUR = 3_600_000
DAY = 24 * HOUR
NOON = 1_790_000_000_000


class Clocks:
    """A wall clock and a monotonic one that are what a test says, and a steady one over both."""

    def __init__(self, newest_ms: int | None = NOON) -> None:
        self.wall = NOON
        self.monotonic = 7
        self.steady = SteadyClock(newest_ms, lambda: self.wall, lambda: self.monotonic)

    def run(self, milliseconds: int) -> int:
        """Time passes, in rounds of a minute; what the steady clock says then."""
        for _ in range(0, milliseconds, 60_000):
            self.wall += 60_000
            self.monotonic += 60_000
            said = self.steady.now_ms()
        return said


def test_says_what_a_right_clock_says() -> None:
    clocks = Clocks()
    assert clocks.steady.now_ms() == NOON
    assert clocks.run(3 * DAY) == NOON + 3 * DAY


def test_a_clock_that_is_corrected_a_little_is_followed() -> None:
    clocks = Clocks()
    for step in (HOUR // 2, -2000, 50 * 60_000):
        clocks.wall += step
        assert clocks.run(HOUR) == clocks.wall


def test_a_jump_ahead_is_not_followed_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    clocks.run(HOUR)
    clocks.wall += 400 * DAY
    assert clocks.run(5 * HOUR) == NOON + 6 * HOUR
    [line] = caplog.records
    assert line.levelno == logging.ERROR
    assert "2027-10-26" in line.message
    clocks.wall -= 400 * DAY
    assert clocks.run(HOUR) == clocks.wall == NOON + 7 * HOUR
    assert len(caplog.records) == 1


def test_every_jump_is_said(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    clocks.run(HOUR)
    for jump in (2 * DAY, 300 * DAY, -2 * DAY):
        clocks.wall += jump
        assert clocks.run(HOUR) < NOON + DAY
    assert len(caplog.records) == 3


def test_a_jump_that_lasts_for_a_day_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    """It was wrong before, then, and has been corrected."""
    clocks = Clocks()
    clocks.run(HOUR)
    clocks.wall += 400 * DAY
    assert clocks.run(DAY - HOUR) == NOON + DAY
    assert clocks.run(2 * HOUR) == clocks.wall
    assert [line.levelno for line in caplog.records] == [logging.ERROR, logging.WARNING]
    clocks.wall += 400 * DAY  # the next one is doubted as well
    assert clocks.run(HOUR) < clocks.wall - DAY


def test_another_jump_begins_another_day() -> None:
    clocks = Clocks()
    clocks.run(HOUR)
    clocks.wall += 400 * DAY
    clocks.run(20 * HOUR)
    clocks.wall += 10 * DAY
    assert clocks.run(20 * HOUR) == NOON + 41 * HOUR
    assert clocks.run(5 * HOUR) == clocks.wall


def test_a_clock_that_goes_back_is_followed_at_once_and_is_doubted_when_it_returns() -> None:
    clocks = Clocks()
    clocks.run(HOUR)
    clocks.wall -= 30 * DAY
    assert clocks.run(HOUR) == clocks.wall
    clocks.wall += 30 * DAY
    assert clocks.run(HOUR) == clocks.wall - 30 * DAY


def test_at_the_start_the_newest_inspection_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    """After a night's pause nobody needs to be alarmed, but the log says by which time is deleted."""
    clocks = Clocks(newest_ms=NOON - 14 * HOUR)
    assert clocks.run(HOUR) == clocks.wall - 14 * HOUR
    assert [line.levelno for line in caplog.records] == [logging.WARNING]
    assert clocks.run(DAY) == clocks.wall


def test_a_jump_after_a_pause_is_an_error_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks(newest_ms=NOON - 14 * HOUR)
    clocks.run(2 * DAY)
    caplog.clear()
    clocks.wall += 400 * DAY
    clocks.run(HOUR)
    assert [line.levelno for line in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("newest_ms", [None, NOON, NOON - HOUR + 1])
def test_at_the_start_a_clock_that_nothing_contradicts_is_believed(
    newest_ms: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    clocks = Clocks(newest_ms)
    assert clocks.steady.now_ms() == NOON
    assert caplog.records == []


def test_the_clocks_of_this_machine_are_taken_by_default() -> None:
    steady = SteadyClock(None)
    first = steady.now_ms()
    assert 0 <= steady.now_ms() - first < HOUR
