import uuid

import numpy as np
import pytest

from app.auth.permissions import ANONYMOUS
from app.database.engine import Database
from app.history import decision_counts, reviews
from app.history.audit_sample import is_drawn
from app.history.decision_counts import TimeSpan
from app.schemas.history import Verdict
from tests.app.history.rows import add, decided, row

HOUR = 3_600_000
NOON = 1_790_000_000_000
DAY = TimeSpan(NOON, NOON + 12 * HOUR)


def review(database: Database, identifier: str, *verdicts: Verdict) -> None:
    for revision, verdict in enumerate(verdicts):
        reviews.add_review(database, ANONYMOUS, identifier, verdict, revision)


def test_decisions_and_latest_verdicts_are_counted(database: Database) -> None:
    passed = add(database, *(row(NOON + i) for i in range(5)))
    rejected = add(database, *(row(NOON + i, decision="REJECT") for i in range(3)))
    review(database, passed[0], "defect", "good")
    review(database, passed[1], "defect")
    review(database, rejected[0], "defect")
    with database.read() as connection:
        found = decision_counts.count_decisions(connection, "tiny", DAY)
    assert found == decided(PASS=(5, 1, 1), REJECT=(3, 0, 1))


def test_time_span_excludes_its_end(database: Database) -> None:
    add(database, *(row(NOON + at) for at in (-1, 0, 12 * HOUR - 1, 12 * HOUR)))
    with database.read() as connection:
        assert decision_counts.count_decisions(connection, "tiny", DAY) == decided(PASS=(2, 0, 0))


def test_other_categories_and_stations_are_not_counted(database: Database) -> None:
    places = (("tiny", "a"), ("tiny", "b"), ("other", "a"))
    for identifier in add(database, *(row(NOON, category=name, station=at) for name, at in places)):
        review(database, identifier, "good")
    with database.read() as connection:
        assert decision_counts.count_decisions(connection, "tiny", DAY) == decided(PASS=(2, 2, 0))
        assert decision_counts.count_decisions(connection, "tiny", DAY, "a") == decided(PASS=(1, 1, 0))
        assert decision_counts.count_decisions(connection, "tiny", DAY, "c") == decided()


def test_audit_sample_is_unbiased_if_other_reviews_are_not(database: Database) -> None:
    """Customers send defective parts back, and operators review rejects: both are reviewed for a reason."""
    rng = np.random.default_rng(5)
    rejects = {"good": 0.05, "defect": 0.7}
    rows = []
    for _ in range(6000):
        verdict = "good" if rng.random() < 0.9 else "defect"
        decision = "REJECT" if rng.random() < rejects[verdict] else "PASS"
        identifier = str(uuid.UUID(int=(NOON << 80) | int.from_bytes(rng.bytes(9))))
        audit = is_drawn(identifier, 0.25)
        reviewed = audit or ((decision, verdict) != ("PASS", "good") and rng.random() < 0.9)
        rows.append(row(NOON, decision=decision, audit=audit, verdict=verdict if reviewed else None))
        rows[-1]["id"] = identifier
    add(database, *rows)
    with database.read() as connection:
        found = decision_counts.estimate_error_rates(connection, "tiny", DAY)
    assert found.audit is not None
    assert found.audit.unreviewed == 0
    assert found.audit.overkill.value == pytest.approx(rejects["good"], abs=0.015)
    assert found.audit.escape.value == pytest.approx(1 - rejects["defect"], abs=0.08)
    assert found.escape.value is not None
    assert found.escape.value > 0.5


def test_inspections_by_category_and_version(each_database: Database) -> None:
    add(
        each_database,
        row(NOON, version="v1"),
        row(NOON + 1, version="v2"),
        row(NOON + 2, version="v2", station="a"),
        row(NOON + 3, category="other"),
        row(NOON - 1, category="early"),
    )
    with each_database.read() as connection:
        everything = decision_counts.count_versions(connection, DAY, None)
        assert everything == {"other": {"v1": 1}, "tiny": {"v1": 1, "v2": 2}}
        assert decision_counts.count_versions(connection, DAY, {"other", "early"}) == {"other": {"v1": 1}}
        assert decision_counts.count_versions(connection, DAY, None, "a") == {"tiny": {"v2": 1}}
