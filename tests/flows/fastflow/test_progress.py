"""Progress as NDJSON: shares of the whole command, rising, and the time left."""

import json
from typing import Any

import pytest

from flows.fastflow import progress as progress_module
from flows.fastflow.progress import JsonProgress


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_stages_report_share_and_time_left(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = JsonProgress({"features": 1, "fit": 3})
    with progress.stage("features", 2) as advance:
        advance(1)
    progress.say("half a straße")
    with progress.stage("fit", 4) as advance:
        advance(1.25)  # of an earlier run
        clock.now += 10
        advance(0.75)
        clock.now += 0.1
        advance(0.5)  # too soon after the last one
    told = events(capsys)
    assert told[3] == {"event": "line", "text": "half a straße"}
    assert [(one["stage"], one["done"], one["share"]) for one in told if one["event"] == "progress"] == [
        ("features", 0, 0),
        ("features", 1, 0.125),
        ("features", 2, 0.25),
        ("fit", 0, 0.25),
        ("fit", 1, 0.4844),
        ("fit", 2, 0.625),
        ("fit", 4, 1),
    ]
    # Three quarters of an epoch took 10 s, and two epochs are left.
    assert [one["seconds_left"] for one in told if one.get("stage") == "fit"][:3] == [None, None, 26.7]


def test_stage_without_steps_or_unplanned_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    progress = JsonProgress({"data": 1})
    assert list(progress.track([], "data", 0)) == []
    assert list(progress.track("ab", "images", 2)) == ["a", "b"]
    assert {one["share"] for one in events(capsys)} == {1}
