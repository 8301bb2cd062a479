from collections.abc import Sequence

import pytest

from app.database.engine import Database
from app.history import browsing
from app.history.queries import InspectionFilter
from tests.app.history.rows import add, row
from tests.app.routes.pages.rows import answered


def ids(scored: Sequence[browsing.ScorePoint]) -> list[str]:
    return [one.id for one in scored]


def test_adjacent_inspections_match_the_filter(database: Database) -> None:
    names = ["a", "b", "a", "c", "a"]
    made = add(database, *(row(category=name) for name in names))
    with database.read() as connection:

        def adjacent(place: int, where: InspectionFilter) -> browsing.AdjacentInspections:
            return browsing.find_adjacent(connection, where, made[place])

        assert adjacent(2, InspectionFilter()) == (made[1], made[3])
        assert adjacent(2, InspectionFilter(category="a")) == (made[0], made[4])
        assert adjacent(0, InspectionFilter()) == (None, made[1])
        assert adjacent(4, InspectionFilter()) == (made[3], None)
        assert adjacent(2, InspectionFilter(categories=frozenset({"b", "c"}))) == (made[1], made[3])
        assert adjacent(0, InspectionFilter(categories=frozenset({"b", "c"}))) == (None, made[1])
        assert adjacent(4, InspectionFilter(categories=frozenset({"b", "c"}))) == (made[3], None)
        assert adjacent(2, InspectionFilter(category="a", categories=frozenset({"b"}))) == (None, None)
        assert adjacent(2, InspectionFilter(categories=frozenset())) == (None, None)


def test_each_station_is_listed_once(database: Database) -> None:
    rows = [("a", "line 2"), ("a", "line 1"), ("b", "line 3"), ("a", "line 2"), ("b", None), ("a", "Ä")]
    add(database, *(row(category=category, station=station) for category, station in rows))
    with database.read() as connection:
        assert browsing.list_stations(connection, None) == ["line 1", "line 2", "line 3", "Ä"]
        assert browsing.list_stations(connection, frozenset({"b"})) == ["line 3"]
        assert browsing.list_stations(connection, frozenset({"nothing"})) == []
        assert browsing.list_stations(connection, frozenset()) == []


@pytest.mark.parametrize("limit", [2, 10])
def test_score_series_has_the_latest_with_thresholds(each_database: Database, limit: int) -> None:
    rows = [answered(reject=3.5, review=None if i else 2.25, score=float(i)) for i in range(4)]
    made = add(each_database, *rows)
    add(each_database, answered(category="other"))
    with each_database.read() as connection:
        found = browsing.load_scores(connection, InspectionFilter(category="tiny"), limit)
        assert ids(found) == made[-limit:]
        assert {one.reject for one in found} == {3.5}
        assert [one.review for one in found] == [2.25, None, None, None][-limit:]
        assert [one.score for one in found] == [0.0, 1.0, 2.0, 3.0][-limit:]
        assert (
            ids(browsing.load_scores(connection, InspectionFilter(category="tiny"), limit, made[1]))
            == made[:2]
        )
