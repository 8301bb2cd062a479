import json
from collections.abc import Sequence

import numpy as np
import pytest

from app.database.engine import Database
from app.history import shared_drift
from app.history.drift import DriftMonitor, DriftReference, DriftState, Row
from app.history.shared_drift import LeaderDrift, SharedDrift
from tests.app.history.test_drift import reference, rows


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_drift, "_REFRESH_SECONDS", 0)


class Servers:
    """What servers of one database compare with, and the inspections that it has."""

    def __init__(self, database: Database, compared: DriftReference) -> None:
        self.database = database
        self.compared = compared
        self.filed: list[Row] = []

    def leader(self) -> LeaderDrift:
        return LeaderDrift(self.database, 100, self._reference, self._latest, lambda: ["tiny"])

    def shared(self) -> SharedDrift:
        return SharedDrift(self.database, 100, self._reference, self._latest, lambda: ["tiny"])

    def file(self, leader: LeaderDrift, new: Sequence[Row]) -> None:
        self.filed += new
        leader.on_filed(new)

    def _reference(self, *_: object) -> DriftReference:
        return self.compared

    def _latest(self, _: str, limit: int, *__: object) -> Sequence[Row]:
        return self.filed[-limit:]


def summary(drift: DriftMonitor) -> tuple[DriftState, list[tuple[str, float, float]]]:
    state = drift.state("tiny")
    assert state is not None
    found = [(one.name, one.distance, one.p_value) for one in state.comparisons]
    return DriftState(state.version, state.inspections, state.since, (), state.alarm_since), found


def alarms(caplog: pytest.LogCaptureFixture) -> int:
    return sum("differ from its calibration images" in message for message in caplog.messages)


def test_servers_report_what_the_leader_compared(
    postgres_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(100, 2))
    servers = Servers(postgres_database, reference(rng.normal(size=100), features))
    leader, a, b = servers.leader(), servers.shared(), servers.shared()
    assert summary(a) == summary(b) == (DriftState("v1"), [])
    servers.file(leader, list(rows(rng.normal(size=100), rng.normal(size=(100, 2)))))
    assert summary(a) == summary(b) == summary(leader)
    assert summary(a)[0].inspections == 100
    servers.file(leader, list(rows(rng.normal(4, size=50), rng.normal(size=(50, 2)))))
    assert summary(a) == summary(b) == summary(leader) == summary(servers.shared())
    assert summary(a)[0].alarm
    assert alarms(caplog) == 1


def test_next_leader_tells_no_alarm_again(
    postgres_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(1)
    servers = Servers(postgres_database, reference(rng.normal(size=100)))
    servers.file(servers.leader(), list(rows(rng.normal(4, size=100))))
    assert alarms(caplog) == 1
    before, _ = summary(servers.shared())
    servers.filed = []  # it knows the files of its models folder since its start alone
    next_leader = servers.leader()
    next_leader.on_filed([])
    assert summary(servers.shared()) == summary(next_leader)
    assert summary(next_leader)[0] == before
    servers.file(next_leader, list(rows(rng.normal(4, size=50))))
    after, _ = summary(servers.shared())
    assert after.alarm_since == before.alarm_since
    assert alarms(caplog) == 1
    servers.file(next_leader, list(rows(rng.normal(size=100))))
    assert not summary(servers.shared())[0].alarm


def test_window_of_another_version_is_not_reported(postgres_database: Database) -> None:
    rng = np.random.default_rng(1)
    servers = Servers(postgres_database, reference(rng.normal(size=100)))
    leader, shared = servers.leader(), servers.shared()
    servers.file(leader, list(rows(rng.normal(4, size=100))))
    assert summary(shared)[0].alarm
    servers.compared = reference(rng.normal(size=100), version="v2")
    assert summary(shared) == (DriftState("v2"), [])
    servers.file(leader, list(rows(rng.normal(size=10), version="v2")))
    assert summary(shared)[0].inspections == 10


def test_missing_features_are_stored(postgres_database: Database) -> None:
    rng = np.random.default_rng(1)
    servers = Servers(postgres_database, reference(rng.normal(size=100), rng.normal(size=(100, 2))))
    leader, shared = servers.leader(), servers.shared()
    bare = [{**row, "features": json.dumps([1.0])} for row in rows(rng.normal(size=20))]
    servers.file(leader, bare)
    assert [name for name, *_ in summary(shared)[1]] == ["score"]
