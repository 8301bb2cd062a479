"""How long a page of a large history takes, by each filter, in SQLite and in PostgreSQL, and by which index.

    python -m bench.history_paging --rows 1000000

Fills a database of each kind with inspections of a month, asks for pages as the service does, with other
values each time, and prints median and p95 with the database's own plan. PostgreSQL is started for it, from
Debian's packages; --only sqlite does without. The exit code is 1 if a plan reads or sorts more than its page.
"""

import argparse
import json
import random
import re
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import event

from app.database import clock, tables
from app.database.engine import Database
from app.history import queries
from app.history.queries import Filter
from bench.service.figures import Figures, report
from tests.postgres import Postgres, binaries

_CATEGORIES = [f"part{number}" for number in range(8)]
_STATIONS = [f"line-{number}" for number in range(6)]
_MONTH_MS = 30 * 24 * 3600 * 1000
_FIRST_MS = 1_760_000_000_000
_PAGE = 50
_SLOWEST_MEDIAN_MS = 10
_MOST_ROWS = 20 * _PAGE  # that a step of a plan may yield or throw away
_BATCH = 10_000


class Month:
    """Inspections of a month, always the same ones: some values are common, some are rare.

    Args:
        rows: how many.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._answer = json.dumps(
            {"regions": [{"contour": [[412, 96]] * 100, "peak": 6.0}], "rest": "." * 300}
        )

    def id(self, number: int) -> str:
        """The id of a row; rows are in the order of time."""
        at = _FIRST_MS + _MONTH_MS * number // self.rows
        high = (at << 80) | (7 << 76) | ((number & 0xFFF) << 64) | (2 << 62)
        return str(uuid.UUID(int=high | (number * 0x9E3779B97F4A7C15) & (2**62 - 1)))

    def part(self, number: int) -> str:
        """The part of a row: three pictures each."""
        return f"P-{number // 3:09}"

    def row(self, number: int, rng: random.Random) -> dict[str, Any]:
        """A row of the table, complete."""
        identifier = self.id(number)
        decision = rng.choices(("PASS", "REVIEW", "REJECT"), (960, 25, 15))[0]
        # Two traps for a planner that expects every value everywhere: a category in one of ten thousand rows,
        # and a line with its category that have not been seen for most of the month.
        category = "rare" if number % 10_000 == 17 else rng.choice(_CATEGORIES)
        station = rng.choice(_STATIONS)
        if number < self.rows // 10 and rng.random() < 0.8:
            category, station = "retired", "line-old"
        verdict = rng.choice(("good", "defect")) if rng.random() < 0.01 else None
        return {
            "id": identifier,
            "created_ms": clock.time_of(identifier),
            "category": category,
            "version": "20261125T011500-3f9a2c",
            "decision": decision,
            "score": rng.gauss(2, 0.5),
            "p_value": rng.random(),
            "part_id": self.part(number),
            "product_id": None,
            "recipe_id": None,
            "station": station,
            "key_id": "0123456789abcdef",
            "request_id": identifier[-12:],
            "image_sha256": f"{number:064x}",
            "image_bytes": 100_000,
            "has_pictures": True,
            "seen_ms": None,
            "precision": "float32",
            "map_bytes": 131_200,
            "map_low": 1.0,
            "map_middle": 3.0,
            "features": None,
            "idempotency_key": None,
            "request_sha256": None,
            "answer": self._answer,
            "review_revision": int(verdict is not None),
            "verdict": verdict,
        }

    def all(self) -> Iterator[list[dict[str, Any]]]:
        """All rows, in batches."""
        rng = random.Random(0)  # noqa: S311
        for first in range(0, self.rows, _BATCH):
            yield [self.row(number, rng) for number in range(first, min(first + _BATCH, self.rows))]


Draw = Callable[[random.Random], tuple[Filter, str | None]]


def cases(month: Month) -> dict[str, Draw]:
    """What is asked: a filter and the id after which the page begins, drawn anew each time."""

    def deep(rng: random.Random) -> str:
        return month.id(rng.randrange(month.rows // 10, month.rows))

    def day(rng: random.Random) -> tuple[int, int]:
        begin = _FIRST_MS + rng.randrange(_MONTH_MS - 86_400_000)
        return begin, begin + 86_400_000

    def some_day(rng: random.Random, **others: str) -> Filter:
        begin, end = day(rng)
        return Filter(from_ms=begin, to_ms=end, **others)  # type: ignore[arg-type]

    pick = random.Random.choice
    return {
        "first page": lambda _: (Filter(), None),
        "deep page": lambda rng: (Filter(), deep(rng)),
        "category": lambda rng: (Filter(category=pick(rng, _CATEGORIES)), None),
        "category, deep": lambda rng: (Filter(category=pick(rng, _CATEGORIES)), deep(rng)),
        "rare category": lambda _: (Filter(category="rare"), None),
        "category that was retired": lambda _: (Filter(category="retired"), None),
        "station that was retired": lambda _: (Filter(station="line-old"), None),
        "category that is not there": lambda _: (Filter(category="nothing"), None),
        "decision REJECT": lambda _: (Filter(decision="REJECT"), None),
        "decision REJECT, deep": lambda rng: (Filter(decision="REJECT"), deep(rng)),
        "category and decision, deep": lambda rng: (
            Filter(category=pick(rng, _CATEGORIES), decision="REJECT"),
            deep(rng),
        ),
        "part_id": lambda rng: (Filter(part_id=month.part(rng.randrange(month.rows))), None),
        "part_id of a category": lambda rng: (
            Filter(part_id=month.part(rng.randrange(month.rows)), category=pick(rng, _CATEGORIES)),
            None,
        ),
        "a part for a key of three categories": lambda rng: (
            Filter(
                part_id=month.part(rng.randrange(month.rows)),
                categories=frozenset(rng.sample(_CATEGORIES, 3)),
            ),
            None,
        ),
        "station": lambda rng: (Filter(station=pick(rng, _STATIONS)), None),
        "station, deep": lambda rng: (Filter(station=pick(rng, _STATIONS)), deep(rng)),
        "station and decision, deep": lambda rng: (
            Filter(station=pick(rng, _STATIONS), decision="REVIEW"),
            deep(rng),
        ),
        "retired station and decision": lambda _: (Filter(station="line-old", decision="PASS"), None),
        "station and verdict": lambda rng: (Filter(station=pick(rng, _STATIONS), verdict="defect"), None),
        "decision and verdict": lambda _: (Filter(decision="PASS", verdict="defect"), None),
        "category, station and decision, deep": lambda rng: (
            Filter(category=pick(rng, _CATEGORIES), station=pick(rng, _STATIONS), decision="REJECT"),
            deep(rng),
        ),
        "verdict": lambda rng: (Filter(verdict=pick(rng, ["good", "defect"])), deep(rng)),
        "category and verdict": lambda rng: (
            Filter(category=pick(rng, _CATEGORIES), verdict="defect"),
            deep(rng),
        ),
        "a day": lambda rng: (some_day(rng), None),
        "a day of a category": lambda rng: (some_day(rng, category=pick(rng, _CATEGORIES)), None),
        "a day's rejects": lambda rng: (some_day(rng, decision="REJECT"), None),
        "a key's three categories": lambda rng: (
            Filter(categories=frozenset(rng.sample(_CATEGORIES, 3))),
            deep(rng),
        ),
    }


def fill(database: Database, month: Month) -> float:
    """Fill a database, as fast as it can be filled; returns the seconds that took."""
    begun = time.monotonic()
    names = [column.name for column in tables.inspections.columns]
    with database.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        if database.is_sqlite:
            sql = f"INSERT INTO inspections ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
            driver.execute("BEGIN IMMEDIATE")
            for rows in month.all():
                driver.executemany(sql, [tuple(row[name] for name in names) for row in rows])
            driver.execute("COMMIT")
        else:
            with driver.cursor() as cursor:
                with cursor.copy(f"COPY inspections ({', '.join(names)}) FROM STDIN") as copy:
                    for rows in month.all():
                        for row in rows:
                            copy.write_row([row[name] for name in names])
                driver.commit()
                # As autovacuum does on its own, a minute later.
                driver.autocommit = True
                cursor.execute("VACUUM ANALYZE inspections")
                driver.autocommit = False
    return time.monotonic() - begun


def measure(database: Database, month: Month, repetitions: int) -> tuple[Figures, list[str]]:
    """Ask for pages of every kind; returns the figures, and what was slow or used no index."""
    figures: Figures = {}
    failures = []
    for name, draw in cases(month).items():
        rng = random.Random(1)  # noqa: S311
        seconds, rows = [], []
        for _ in range(repetitions):
            wanted, after = draw(rng)
            begun = time.perf_counter()
            with database.read() as connection:
                rows.append(len(queries.page(connection, wanted, _PAGE, after)))
            seconds.append(time.perf_counter() - begun)
        plan = explain(database, *draw(rng))
        median = 1000 * statistics.median(seconds)
        figures[name] = {
            "rows": statistics.median(rows),
            "median_ms": round(median, 3),
            "p95_ms": round(1000 * float(np.quantile(seconds, 0.95)), 3),
            "max_ms": round(1000 * max(seconds), 3),
            "plan": plan,
        }
        if median > _SLOWEST_MEDIAN_MS:
            failures.append(f"{name}: {median:.1f} ms")
        failures += [f"{name}: {line}" for line in plan if _is_costly(line)]
    return figures, failures


def explain(database: Database, wanted: Filter, after: str | None) -> list[str]:
    """The plan of the statements that make a page, in the database's own words."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    with database.read() as connection:
        event.listen(database.engine, "before_cursor_execute", note)
        try:
            queries.page(connection, wanted, _PAGE, after)
        finally:
            event.remove(database.engine, "before_cursor_execute", note)
        how = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN (ANALYZE, COSTS OFF, SUMMARY OFF)"
        return [
            str(row[-1]).strip()
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"{how} {statement}", parameters)
        ]


def _is_costly(line: str) -> bool:
    """Whether a line of a plan is of work that grows with the history, not with the page."""
    if line.startswith("SCAN inspections") and "USING" not in line:
        return True
    counts = map(float, re.findall(r"(?:\brows=|Rows Removed by [A-Za-z ]+: )([0-9]+)", line))
    return "TEMP B-TREE" in line or "Seq Scan" in line or any(n > _MOST_ROWS for n in counts)


@contextmanager
def _databases(only: str | None) -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="flowgauge-bench-") as folder:
        urls = {"sqlite": f"sqlite:///{Path(folder) / 'history.sqlite'}"}
        if only == "sqlite":
            yield urls
            return
        programs = binaries()
        if programs is None:
            sys.exit("there is no PostgreSQL server; on Debian: apt-get install postgresql, or --only sqlite")
        with Postgres(programs) as server, server.database() as url:
            urls["postgresql"] = url
            yield urls if only is None else {only: urls[only]}


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=200, help="pages of each kind")
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    parser.add_argument("--out", type=Path, default=Path("bench-results/service"))
    options = parser.parse_args()
    month = Month(options.rows)
    figures: Figures = {"rows": options.rows, "page": _PAGE, "repetitions": options.repetitions}
    failures: list[str] = []
    with _databases(options.only) as urls:
        for kind, url in urls.items():
            database = Database(url)
            database.upgrade()
            seconds = fill(database, month)
            print(f"{kind}: {options.rows} inspections in {seconds:.0f} s", flush=True)
            pages, faults = measure(database, month, options.repetitions)
            for name, page in pages.items():
                print(f"{kind:<11}{name:<38}{page['median_ms']:>9.2f} ms, p95 {page['p95_ms']:>7.2f} ms")
            figures[kind] = {"fill_seconds": round(seconds, 1), "pages": pages}
            failures += [f"{kind}: {fault}" for fault in faults]
            database.close()
    return report("history_paging", figures, failures, options.out)


if __name__ == "__main__":
    sys.exit(main())
