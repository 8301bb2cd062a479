from app.access import ANONYMOUS
from app.database.engine import Database
from app.history import reports, reviews
from app.history.rates import Stratum
from app.history.reports import Shift, Span
from app.schemas.history import Verdict
from tests.app.history.rows import add, row

HOUR = 3_600_000
NOON = 1_790_000_000_000
DAY = Span(NOON, NOON + 12 * HOUR)


def review(database: Database, identifier: str, *verdicts: Verdict) -> None:
    for revision, verdict in enumerate(verdicts):
        reviews.add(database, ANONYMOUS, identifier, verdict, revision)


def test_counts_decisions_and_the_latest_verdict_of_each_inspection(database: Database) -> None:
    passed = add(database, *(row(NOON + i) for i in range(5)))
    rejected = add(database, *(row(NOON + i, decision="REJECT") for i in range(3)))
    review(database, passed[0], "defect", "good")
    review(database, passed[1], "defect")
    review(database, rejected[0], "defect")
    with database.read() as connection:
        found = reports.strata(connection, "tiny", DAY)
    assert found == {
        "PASS": Stratum(5, good=1, defect=1),
        "REVIEW": Stratum(0),
        "REJECT": Stratum(3, good=0, defect=1),
    }


def test_a_time_holds_its_begin_and_not_its_end(database: Database) -> None:
    add(database, *(row(NOON + at) for at in (-1, 0, 12 * HOUR - 1, 12 * HOUR)))
    with database.read() as connection:
        assert reports.strata(connection, "tiny", DAY)["PASS"] == Stratum(2)


def test_other_categories_and_stations_are_not_counted(database: Database) -> None:
    ids = add(
        database,
        row(NOON, station="a"),
        row(NOON, station="b"),
        row(NOON, category="other", station="a"),
    )
    for identifier in ids:
        review(database, identifier, "good")
    with database.read() as connection:
        assert reports.strata(connection, "tiny", DAY)["PASS"] == Stratum(2, good=2)
        assert reports.strata(connection, "tiny", DAY, "a")["PASS"] == Stratum(1, good=1)
        assert reports.strata(connection, "tiny", DAY, "c")["PASS"] == Stratum()


def test_a_shift_by_category_and_version(each_database: Database) -> None:
    add(
        each_database,
        row(NOON, version="v1"),
        row(NOON + 1, version="v2"),
        row(NOON + 2, version="v2", decision="REVIEW", station="a"),
        row(NOON + 3, category="other"),
        row(NOON - 1, category="early"),
    )
    with each_database.read() as connection:
        everything = reports.shifts(connection, DAY, None)
        allowed = reports.shifts(connection, DAY, {"other", "early"})
        station = reports.shifts(connection, DAY, None, "a")
    assert [(shift.category, shift.versions) for shift in everything] == [
        ("other", {"v1": 1}),
        ("tiny", {"v1": 1, "v2": 2}),
    ]
    assert everything[1].strata["REVIEW"] == Stratum(1)
    assert [shift.category for shift in allowed] == ["other"]
    assert station == [
        Shift("tiny", {"PASS": Stratum(), "REVIEW": Stratum(1), "REJECT": Stratum()}, {"v2": 1})
    ]
