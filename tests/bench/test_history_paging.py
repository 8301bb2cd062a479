"""Pages of a history are measured as they are asked for."""

from pathlib import Path

from app.database.engine import Database
from bench.history_paging import Month, cases, fill, measure


def test_each_kind_of_page_is_found_by_an_index(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'history.sqlite'}")
    database.upgrade()
    month = Month(3000)
    fill(database, month)
    figures, failures = measure(database, month, 2)
    database.close()
    assert figures.keys() == cases(month).keys()
    assert figures["first page"]["rows"] == 50
    assert figures["part_id of a category"]["rows"] < 3
    assert not [line for line in failures if not line.endswith(" ms")]  # which are of the clock
