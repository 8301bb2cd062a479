"""SQLite reads the index that finds the fewest rows, of which it has no statistics to know."""

from collections.abc import Iterator
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from app.database.engine import Database
from app.history import queries
from app.history.queries import Filter
from app.history.training_set import good_pictures, pictures_of_parts
from tests.app.history.rows import add, row

GIVEN: dict[str, Any] = {
    "category": "tiny",
    "decision": "PASS",
    "part_id": "P-7",
    "station": "line-1",
    "verdict": "good",
}
COMBINATIONS = list(chain.from_iterable(combinations(GIVEN, n) for n in range(1, 6)))


class Plans:
    """Notes what is asked of a database, and gives SQLite's plans for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: list[tuple[str, Any]] = []
        event.listen(database.engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            self._asked.append((statement, parameters))

    def read(self) -> list[str]:
        """Of what was asked since the last time, a line for each step."""
        asked, self._asked = self._asked, []
        with self._database.read() as connection:
            rows = [
                row
                for statement, parameters in asked
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]
        return [row[-1] for row in rows]


def searches(lines: list[str]) -> list[str]:
    """Without the sorting of what was found."""
    return [line for line in lines if not line.startswith("USE TEMP B-TREE")]


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'database.sqlite'}")
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def plans(sqlite: Database) -> Plans:
    return Plans(sqlite)


def index_for(names: tuple[str, ...]) -> str:
    if "part_id" in names:
        return "ix_inspections_part_id (part_id=?)"
    rarest = next((name for name in ("verdict", "station", "decision") if name in names), None)
    own = [name for name in ("category", rarest) if name in names]
    return f"ix_inspections_{'_'.join(own)} ({' AND '.join(f'{name}=?' for name in own)})"


def test_each_combination_of_filters_has_its_index(sqlite: Database, plans: Plans) -> None:
    read = {}
    for names in COMBINATIONS:
        with sqlite.read() as connection:
            queries.page(connection, Filter(**{name: GIVEN[name] for name in names}), 50)
        read[names] = plans.read()
    assert read == {names: [f"SEARCH inspections USING INDEX {index_for(names)}"] for names in COMBINATIONS}


def test_whatever_index_is_read_the_rows_are_those_of_the_filter(database: Database) -> None:
    others = {"category": "b", "decision": "REJECT", "part_id": None, "station": None, "verdict": None}
    rows = [
        row(**dict(zip(GIVEN, values, strict=True)))
        for values in product(*zip(GIVEN.values(), others.values(), strict=True))
    ]
    add(database, *rows)
    for names in COMBINATIONS:
        wanted = {name: GIVEN[name] for name in names}
        with database.read() as connection:
            found = [one.id for one in queries.page(connection, Filter(**wanted), 50)]
        assert len(found) == 2 ** (5 - len(names))
        assert found == [one["id"] for one in reversed(rows) if wanted.items() <= one.items()]


def test_the_decisions_on_a_part_are_found_by_the_part(sqlite: Database, plans: Plans) -> None:
    add(sqlite, row(part_id="P-7"), row(part_id="P-7", category="b"), row(part_id="P-8"))
    with sqlite.read() as connection:
        assert queries.part_decisions(connection, "P-7", {"tiny"}) == {"PASS": 1}
        assert queries.part_decisions(connection, "P-7", None) == {"PASS": 2}
    found = searches(plans.read())
    assert found == ["SEARCH inspections USING INDEX ix_inspections_part_id (part_id=?)"] * 2


def test_what_is_said_elsewhere_of_good_pictures_is_found_by_the_picture(
    sqlite: Database, plans: Plans
) -> None:
    add(sqlite, row(verdict="good"))
    list(good_pictures(sqlite, "tiny"))
    list(pictures_of_parts(sqlite, "tiny", ["P-7"]))
    assert searches(plans.read()) == [
        "SEARCH inspections USING INDEX ix_inspections_category_verdict (category=? AND verdict=? AND id>?)",
        "SEARCH inspections USING INDEX ix_inspections_image_sha256 (image_sha256=?)",
        "SEARCH inspections USING INDEX ix_inspections_image_sha256 (image_sha256=?)",
        "SEARCH inspections USING INDEX ix_inspections_part_id (part_id=?)",
    ]
