from itertools import chain, combinations, product
from typing import Any

import pytest

from app.database.engine import Database
from app.history import browsing, queries
from app.history.queries import InspectionFilter
from app.history.reviewed_images import ReviewedInspection, find_images, find_images_of_parts
from tests.app.history.rows import add, row
from tests.app.support.query_plans import record_query_plans

GIVEN: dict[str, Any] = {
    "category": "tiny",
    "decision": "PASS",
    "part_id": "P-7",
    "station": "line-1",
    "verdict": "good",
}
COMBINATIONS = list(chain.from_iterable(combinations(GIVEN, n) for n in range(1, 6)))


def by_index(names: str) -> str:
    """Return the indexed columns of a query plan."""
    columns = names.split(", ")
    found = " AND ".join(f"{name}=?" for name in columns)
    return f"SEARCH inspections USING INDEX ix_inspections_{'_'.join(columns)} ({found})"


def index_for(names: tuple[str, ...]) -> str:
    if "part_id" in names:
        return by_index("part_id")
    rarest = next((name for name in ("verdict", "station", "decision") if name in names), None)
    return by_index(", ".join(name for name in ("category", rarest) if name in names))


def test_each_filter_combination_has_an_index(database: Database) -> None:
    with record_query_plans(database) as plans, database.read() as connection:
        for names in COMBINATIONS:
            queries.find_page(connection, InspectionFilter(**{name: GIVEN[name] for name in names}), 50)
    assert dict(zip(COMBINATIONS, plans, strict=True)) == {
        names: [index_for(names)] for names in COMBINATIONS
    }


@pytest.mark.parametrize("others", [{}, {"reviewed": False}, GIVEN])
def test_audit_sample_has_an_index(database: Database, others: dict[str, Any]) -> None:
    with record_query_plans(database) as plans, database.read() as connection:
        queries.find_page(connection, InspectionFilter(audit=True, **others), 50)
    assert plans == [["SCAN inspections USING INDEX ix_inspections_audit"]]


def plan(database: Database, **given: Any) -> str:
    with record_query_plans(database) as plans, database.read() as connection:
        queries.find_page(connection, InspectionFilter(**given), 50)
    [[line]] = plans
    return line


def test_files_warnings_and_margins_have_an_index(database: Database) -> None:
    assert plan(database, file_name="a.png", category="b") == by_index("file_name")
    assert plan(database, part_id="P", warning="near-threshold") == by_index("part_id")
    for others in ({}, {"category": "b", "decision": "PASS", "reviewed": False}):
        line = plan(database, warning="near-threshold", **others)
        assert line == "SCAN inspections USING INDEX ix_inspections_warnings"
    given = {"category": "b", "decision": "PASS", "min_margin": -1.0, "max_margin": 0.0}
    assert plan(database, **given) == by_index("category")


def test_warnings_and_margins_are_found(each_database: Database) -> None:
    both = ["near-threshold", "starter-model"]
    ids = add(
        each_database,
        row(margin=-0.5, warnings=both),
        row(margin=0.5, warnings=["unlike-training"]),
        row(margin=None),
        row(margin=0.6, warnings=both, verdict="good"),
    )

    def find(**given: Any) -> list[str]:
        with each_database.read() as connection:
            return [one.id for one in queries.find_page(connection, InspectionFilter(**given), 50)][::-1]

    assert find(warning="starter-model") == [ids[0], ids[3]]
    assert find(warning="near-threshold", reviewed=False) == ids[:1]
    assert find(category="tiny", min_margin=-0.5, max_margin=0.5) == ids[:2]
    assert find(category="tiny", min_margin=0.55) == ids[3:]


def test_unreviewed_audit_sample_is_found(each_database: Database) -> None:
    columns: list[dict[str, Any]] = [
        {"audit": True},
        {"audit": True, "verdict": "good"},
        {},
        {"verdict": "good"},
    ]
    ids = add(each_database, *(row(**one) for one in columns))

    def find(**given: Any) -> list[str]:
        with each_database.read() as connection:
            return [one.id for one in queries.find_page(connection, InspectionFilter(**given), 50)][::-1]

    assert find(audit=True) == ids[:2]
    assert find(audit=False) == ids[2:]
    assert find(audit=True, reviewed=False) == ids[:1]
    assert find(reviewed=True) == ids[1::2]


def test_export_pages_through_several_categories(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_EXPORT_ROWS", 3)
    ids = add(database, *(row(category=category) for category in "aaaaabbbbb"))
    pages = list(queries.iterate_pages(database, InspectionFilter(categories=frozenset("ab"))))
    assert [one.id for page in pages for one in page] == ids[::-1]
    assert max(map(len, pages)) == 3


def test_every_index_returns_the_matching_rows(each_database: Database) -> None:
    others = {"category": "b", "decision": "REJECT", "part_id": None, "station": None, "verdict": None}
    rows = [
        row(**dict(zip(GIVEN, values, strict=True)))
        for values in product(*zip(GIVEN.values(), others.values(), strict=True))
    ]
    add(each_database, *rows)
    for names in COMBINATIONS:
        given = {name: GIVEN[name] for name in names}
        with each_database.read() as connection:
            found = [one.id for one in queries.find_page(connection, InspectionFilter(**given), 50)]
        assert len(found) == 2 ** (5 - len(names))
        assert found == [one["id"] for one in reversed(rows) if given.items() <= one.items()]


def test_decisions_on_a_part_use_the_index_of_parts(database: Database) -> None:
    add(database, row(part_id="P-7"), row(part_id="P-7", category="b"), row(part_id="P-8"))
    with record_query_plans(database) as plans, database.read() as connection:
        of_tiny = InspectionFilter(part_id="P-7", categories=frozenset({"tiny"}))
        assert browsing.count_decisions(connection, of_tiny) == {"PASS": 1, "REVIEW": 0, "REJECT": 0}
        assert browsing.count_decisions(connection, InspectionFilter(part_id="P-7"))["PASS"] == 2
    assert [lines[0] for lines in plans] == [by_index("part_id")] * 6


def test_query_plan_finds_other_reviews_by_image(database: Database) -> None:
    add(database, row(verdict="good"))
    with record_query_plans(database) as plans:
        list(find_images(database, "tiny"))
        find_images_of_parts(database, "tiny", [ReviewedInspection("a", 0, "1" * 64, "P-7")])
    assert [lines[0] for lines in plans] == [
        by_index("category, verdict").replace(")", " AND id>?)"),
        by_index("image_sha256"),
        by_index("image_sha256"),
        by_index("part_id"),
    ]
