"""Other thresholds: counts by hand, and rates as those of the decisions that were taken."""

from typing import Any

import pytest

from app.database.engine import Database
from app.history import outlook, rates, reports
from app.history.outlook import Kept, Limits
from app.history.rates import Stratum
from app.history.reports import Span
from app.schemas.predict import Decision
from tests.app.history.rows import add, row
from tests.app.plans import plans_of

EVER = Span(0, 2**45)


def kept(last: int = 1000, **changes: Any) -> Kept:
    given: dict[str, Any] = {"category": "tiny", "version": "v1", "precision": "float32", "span": EVER}
    return Kept(**(given | {"last": last} | changes))


def several(count: int, decision: Decision, score: float, verdict: str | None = None) -> list[dict[str, Any]]:
    return [row(decision=decision, score=score, verdict=verdict) for _ in range(count)]


@pytest.fixture
def filled(database: Database) -> Database:
    """Decided with REJECT above 3 and no review band; reviewed were ten that passed and all rejected."""
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


def look(database: Database, *positions: Limits, **changes: Any) -> outlook.Seen:
    with database.read() as connection:
        return outlook.look(connection, kept(**changes), positions)


def test_the_position_that_was_in_force_gives_the_rates_there_are(filled: Database) -> None:
    seen = look(filled, Limits(3.0, None))
    assert seen.strata == {
        "PASS": Stratum(100, good=9, defect=1),
        "REVIEW": Stratum(),
        "REJECT": Stratum(10, good=3, defect=7),
    }
    (there,) = seen.positions
    assert there.changes == {}
    assert there.decisions == {"PASS": 100, "REVIEW": 0, "REJECT": 10}
    assert there.overkill == rates.overkill(seen.strata)
    assert there.escape == rates.escape(seen.strata)
    with filled.read() as connection:
        assert reports.strata(connection, "tiny", EVER) == seen.strata


def test_a_lower_threshold_by_hand(filled: Database) -> None:
    """Above 1.5: the twelve parts at 2.0 are rejected too."""
    (lower,) = look(filled, Limits(1.5, None)).positions
    assert lower.decisions == {"PASS": 88, "REVIEW": 0, "REJECT": 22}
    assert lower.changes == {("PASS", "REJECT"): 12}
    # A reviewed part of those that passed stands for ten; one of those that were rejected for itself.
    assert lower.overkill.value == pytest.approx((10 * 1 + 3) / (10 * 9 + 3))
    assert lower.escape.value == 0
    assert lower.escape.low == 0
    assert lower.escape.high is not None
    assert lower.escape.high > 0.2  # ten reviews of a hundred parts


def test_a_higher_threshold_by_hand(filled: Database) -> None:
    (higher,) = look(filled, Limits(4.0, None)).positions  # REJECT is above it, not at it
    assert higher.changes == {("REJECT", "PASS"): 3}
    assert higher.overkill.value == 0
    assert higher.escape.value == pytest.approx(10 / (10 + 7))
    assert look(filled, Limits(6.0, None)).positions[0].escape.value == 1


def test_a_review_band_by_hand(filled: Database) -> None:
    (band,) = look(filled, Limits(4.5, 1.5)).positions
    assert band.decisions == {"PASS": 88, "REVIEW": 15, "REJECT": 7}
    assert band.changes == {("PASS", "REVIEW"): 12, ("REJECT", "REVIEW"): 3}
    assert (band.overkill.value, band.escape.value) == (0, 0)  # what a person sees has not escaped


def test_only_what_compares_is_counted(database: Database) -> None:
    add(
        database,
        row(score=9.0, version="v0"),
        row(score=9.0, category="other"),
        row(score=9.0, station="own"),
        row(score=1.0, station="line"),
        row(score=1.0),
    )
    position = Limits(3.0, None)
    assert look(database, position, without=["own"]).positions[0].decisions["REJECT"] == 0
    assert look(database, position).positions[0].decisions == {"PASS": 2, "REVIEW": 0, "REJECT": 1}
    assert look(database, position, station="own").positions[0].decisions["REJECT"] == 1
    assert look(database, position, station="line").positions[0].changes == {}


def test_scores_of_another_engine_do_not_compare(database: Database) -> None:
    add(
        database,
        row(score=9.0, precision="bfloat16"),
        row(score=9.0, precision="bfloat16"),
        row(score=9.0, precision="float32"),
        row(score=1.0, precision="float32"),
    )
    position = Limits(3.0, None)
    assert look(database, position).positions[0].decisions == {"PASS": 1, "REVIEW": 0, "REJECT": 1}
    reduced = look(database, position, precision="bfloat16").positions[0]
    assert reduced.decisions == {"PASS": 0, "REVIEW": 0, "REJECT": 2}


def test_the_plan_reads_no_more_than_the_latest(database: Database) -> None:
    """The rows come in the order of an index, so that the limit ends the reading; SQLite says so in words."""
    add(database, *(row() for _ in range(10)))
    with database.write() as connection:
        connection.exec_driver_sql("ANALYZE")
    with plans_of(database) as plans, database.read() as connection:
        outlook.look(connection, kept(last=5), [Limits(1.0, None)])
    [plan] = plans
    inner = next(line for line in plan if "inspections" in line)
    assert inner.startswith("SEARCH")
    assert "INDEX" in inner
    assert not any("ORDER BY" in line for line in plan)
