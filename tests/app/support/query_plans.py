"""Query plans of SQLite."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from app.database.engine import Database


@contextmanager
def record_query_plans(database: Database) -> Iterator[list[list[str]]]:
    """Collect the plan of each query in the block; filled at its end."""
    queries: list[tuple[str, Any]] = []
    plans: list[list[str]] = []

    def write(_: object, __: object, query: str, values: Any, *___: object) -> None:
        if query.startswith("SELECT"):
            queries.append((query, values))

    event.listen(database.engine, "before_cursor_execute", write)
    try:
        yield plans
    finally:
        event.remove(database.engine, "before_cursor_execute", write)
    with database.read() as connection:
        for query, values in queries:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values)
            plans.append([row[3] for row in rows])
