from app.auth.audit import Audit
from app.auth.permissions import ANONYMOUS, SERVER
from app.database import clock
from app.database.engine import Database
from app.history.changes import (
    CALIBRATION,
    REGION,
    SERVES,
    before_and_after,
    find_changes,
    last_changed_ms,
    parse_detail,
)
from app.history.decision_counts import TimeSpan

EVER = TimeSpan(0, 2**45)


def find(database: Database, categories: list[str] | None = None, limit: int = 10) -> list[tuple[str, str]]:
    with database.read() as connection:
        rows = find_changes(connection, EVER, categories, limit)
    return [(row["action"], row["target"]) for row in rows]


def test_completed_changes_are_returned_in_order(database: Database) -> None:
    log = Audit(database)
    log.write(ANONYMOUS, "model.thresholds", "bottle", "begun")
    log.write(ANONYMOUS, "model.thresholds", "bottle", "done", {"reason": "less overkill"})
    log.write(ANONYMOUS, "model.thresholds", "bottle", "refused")
    log.write(ANONYMOUS, "model.activate", "bottle/v2", "done")
    log.write(ANONYMOUS, "key.create", "bottle", "done")
    expected = [("model.thresholds", "bottle"), ("model.activate", "bottle/v2")]
    assert find(database) == expected
    assert find(database, limit=1) == expected[1:]


def serves(log: Audit, version: str, previous: str | None = None, category: str = "bottle") -> None:
    log.write(SERVER, SERVES, f"{category}/{version}", "done", {"sha256": "0", "previous": previous})


def versions(database: Database, span: TimeSpan = EVER) -> list[tuple[str, object, object]]:
    """Return the action of every change, and the state before and after."""
    with database.read() as connection:
        rows = find_changes(connection, span, None, 10)
    found = []
    for row in rows:
        before, after = before_and_after(row["action"], row["target"], parse_detail(row))
        assert before is not None
        assert after is not None
        found.append((row["action"], before["version"], after["version"]))
    return found


def test_version_activated_by_training_is_a_change(database: Database) -> None:
    log = Audit(database)
    serves(log, "v1")  # a server that starts
    serves(log, "v2", "v1")
    assert versions(database) == [(SERVES, None, "v1"), (SERVES, "v1", "v2")]
    serves(log, "v1", None, "grid")
    serves(log, "v3", "v1", "grid")
    assert find(database, ["grid"]) == [(SERVES, "grid/v1"), (SERVES, "grid/v3")]
    assert find(database, limit=1) == [(SERVES, "grid/v3")]


def test_version_activated_while_offline_is_a_change(database: Database) -> None:
    log = Audit(database)
    for version in ("v1", "v1", "v2", "v2"):  # starts, or models that were let go of and loaded again
        serves(log, version)
    assert versions(database) == [(SERVES, None, "v1"), (SERVES, "v1", "v2")]


def test_announced_version_is_reported_once(database: Database) -> None:
    log = Audit(database)
    serves(log, "v1")
    # It serves before the act has come to its end.
    log.write(ANONYMOUS, "model.activate", "bottle/v2", "begun")
    serves(log, "v2", "v1")
    log.write(ANONYMOUS, "model.activate", "bottle/v2", "done", {"previous": "v1"})
    log.write(ANONYMOUS, "model.rollback", "bottle", "begun")
    serves(log, "v1", "v2")
    log.write(ANONYMOUS, "model.rollback", "bottle", "done", {"previous": "v2", "active": "v1"})
    # Or long after it, where no request came.
    log.write(ANONYMOUS, "model.activate", "bottle/v2", "done", {"previous": "v1"})
    log.write(ANONYMOUS, "model.activate", "grid/v3", "done", {"previous": "v1"})
    serves(log, "v2", "v1")
    assert versions(database) == [
        (SERVES, None, "v1"),  # the rollback to it comes later
        ("model.activate", "v1", "v2"),
        ("model.rollback", "v2", "v1"),
        ("model.activate", "v1", "v2"),
        ("model.activate", "v1", "v3"),
    ]
    # An act explains one beginning alone, and one that was refused none.
    log.write(ANONYMOUS, "model.activate", "bottle/v4", "refused")
    serves(log, "v4", "v2")
    serves(log, "v2", "v4")
    assert versions(database)[5:] == [(SERVES, "v2", "v4"), (SERVES, "v4", "v2")]


def test_time_of_last_region_change_is_found(database: Database) -> None:
    log = Audit(database)
    before = clock.now_ms()
    log.write(ANONYMOUS, "model.region", "bottle", "refused")
    log.write(ANONYMOUS, "model.thresholds", "bottle", "done")
    with database.read() as connection:
        assert last_changed_ms(connection, "bottle", [REGION, CALIBRATION]) == 0
    for station in (None, "a"):
        log.write(ANONYMOUS, "model.region", "bottle", "done", {"station": station})
    with database.read() as connection:
        assert before <= last_changed_ms(connection, "bottle", [REGION, CALIBRATION]) <= clock.now_ms()
        assert last_changed_ms(connection, "grid", [REGION]) == 0
        assert last_changed_ms(connection, "bottle", [CALIBRATION]) == 0


def test_region_change_reports_only_presence() -> None:
    region = {"image": {"width": 9, "height": 9}, "polygons": [[[0, 0], [9, 0], [9, 9]]], "revision": 3}
    none, there = {"region": "none"}, {"region": "set"}
    assert before_and_after(REGION, "bottle", {"from": None, "to": region}) == (none, there)
    assert before_and_after(REGION, "bottle", {"from": region, "to": region}) == (there, there)
    assert before_and_after(REGION, "bottle", {"from": region, "to": None}) == (there, none)
    assert before_and_after(REGION, "bottle", {}) == (None, None)
