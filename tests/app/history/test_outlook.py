from collections.abc import Collection
from typing import Any

import pytest

from app.database.engine import Database
from app.history import decision_counts, outlook, rates
from app.history.decision_counts import TimeSpan
from app.history.outlook import ThresholdPosition
from app.history.queries import InspectionFilter
from app.schemas.outlook import DecisionChange, ProjectedDecisions, Window
from app.schemas.predict import Decision
from flows.fastflow.manifest import Precision
from tests.app.history.rows import add, decided, row
from tests.app.support.query_plans import record_query_plans

EVER = TimeSpan(0, 2**45)


def several(count: int, decision: Decision, score: float, verdict: str | None = None) -> list[dict[str, Any]]:
    return [row(decision=decision, score=score, verdict=verdict) for _ in range(count)]


@pytest.fixture
def filled(database: Database) -> Database:
    """Store inspections with REJECT above 3; ten passed and all rejected ones are reviewed."""
    add(
        database,
        *several(80, "PASS", 1.0),
        *several(8, "PASS", 1.0, "good"),
        *several(10, "PASS", 2.0),
        *several(1, "PASS", 2.0, "good"),
        *several(1, "PASS", 2.0, "defect"),
        *several(3, "REJECT", 4.0, "good"),
        *several(7, "REJECT", 5.0, "defect"),
    )
    return database


def project(
    database: Database,
    *positions: ThresholdPosition,
    station: str | None = None,
    precision: Precision = "float32",
    last: int = 1000,
    without: Collection[str] = (),
) -> tuple[Window, list[ProjectedDecisions]]:
    where = InspectionFilter(category="tiny", station=station)
    with database.read() as connection:
        return outlook.project(connection, where, "v1", precision, positions, last=last, without=without)


def projected(database: Database, position: ThresholdPosition, **changes: Any) -> ProjectedDecisions:
    _, [one] = project(database, position, **changes)
    return one


def test_thresholds_in_force_give_the_actual_rates(filled: Database) -> None:
    window, [there] = project(filled, ThresholdPosition(3.0, None))
    assert window.decisions == decided(PASS=(100, 9, 1), REJECT=(10, 3, 7))
    assert window.inspections == 110
    assert (there.changed, there.changes) == (0, [])
    assert there.decisions == {"PASS": 100, "REVIEW": 0, "REJECT": 10}
    assert there.overkill == rates.estimate_overkill(window.decisions)
    assert there.escape == rates.estimate_escape(window.decisions)
    with filled.read() as connection:
        assert decision_counts.count_decisions(connection, "tiny", EVER) == window.decisions


def test_lower_threshold_moves_decisions(filled: Database) -> None:
    lower = projected(filled, ThresholdPosition(1.5, None))
    assert lower.decisions == {"PASS": 88, "REVIEW": 0, "REJECT": 22}
    assert lower.changes == [DecisionChange(taken="PASS", would="REJECT", inspections=12)]
    # A reviewed part of those that passed stands for ten; one of those that were rejected for itself.
    assert lower.overkill.value == pytest.approx((10 * 1 + 3) / (10 * 9 + 3))
    assert lower.escape.value == 0
    assert lower.escape.low == 0
    assert lower.escape.high is not None
    assert lower.escape.high > 0.2  # ten reviews of a hundred parts


def test_higher_threshold_moves_decisions(filled: Database) -> None:
    higher = projected(filled, ThresholdPosition(4.0, None))  # REJECT is above it, not at it
    assert higher.changes == [DecisionChange(taken="REJECT", would="PASS", inspections=3)]
    assert higher.overkill.value == 0
    assert higher.escape.value == pytest.approx(10 / (10 + 7))
    assert projected(filled, ThresholdPosition(6.0, None)).escape.value == 1


def test_review_band_moves_decisions(filled: Database) -> None:
    band = projected(filled, ThresholdPosition(4.5, 1.5))
    assert band.decisions == {"PASS": 88, "REVIEW": 15, "REJECT": 7}
    assert band.changed == 15
    assert {(one.taken, one.would): one.inspections for one in band.changes} == {
        ("PASS", "REVIEW"): 12,
        ("REJECT", "REVIEW"): 3,
    }
    assert (band.overkill.value, band.escape.value) == (0, 0)  # what a person sees has not escaped


@pytest.mark.parametrize(
    ("changes", "passed", "rejected"),
    [
        ({}, 2, 2),
        ({"without": ["own"]}, 2, 1),
        ({"station": "own"}, 0, 1),
        ({"station": "line"}, 1, 0),
        ({"precision": "bfloat16"}, 0, 1),
        ({"last": 1}, 1, 0),
    ],
)
def test_only_comparable_inspections_are_counted(
    database: Database, changes: dict[str, Any], passed: int, rejected: int
) -> None:
    add(
        database,
        row(score=9.0, version="v0"),
        row(score=9.0, category="other"),
        row(score=9.0, precision="bfloat16"),
        row(score=9.0, station="own"),
        row(score=9.0),
        row(score=1.0, station="line"),
        row(score=1.0),
    )
    found = projected(database, ThresholdPosition(3.0, None), **changes)
    assert found.decisions == {"PASS": passed, "REVIEW": 0, "REJECT": rejected}


def test_query_plan_reads_only_the_latest_rows(database: Database) -> None:
    add(database, *(row() for _ in range(10)))
    with database.write() as connection:
        connection.exec_driver_sql("ANALYZE")
    with record_query_plans(database) as plans:
        project(database, ThresholdPosition(1.0, None), last=5)
    [plan] = plans
    inner = next(line for line in plan if "inspections" in line)
    assert inner.startswith("SEARCH")
    assert "INDEX" in inner
    assert not any("ORDER BY" in line for line in plan)
