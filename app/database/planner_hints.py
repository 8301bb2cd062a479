"""Hints for SQLite's query planner, which has no statistics of values.

PostgreSQL keeps statistics of every column. SQLite has them only after ANALYZE. FlowGauge never runs it, so
that query plans stay the same.
"""

from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, FunctionElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

T = TypeVar("T")


class unindexed(FunctionElement[T], Generic[T]):  # noqa: N801  (reads as a function of SQL)
    """A column for whose condition no index is used: an index on other columns selects the rows.

    In SQLite, a "+" before a column says so ("The SQLite Query Optimizer Overview", section "Disqualifying
    WHERE Clause Terms Using Unary-"+"").
    """

    inherit_cache = True

    def __init__(self, column: ColumnElement[T]) -> None:
        super().__init__(column)
        self.type = column.type


@compiles(unindexed)
def _plain(element: "unindexed[Any]", compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(unindexed, "sqlite")
def _without_index(element: "unindexed[Any]", compiler: SQLCompiler, **options: Any) -> str:
    return f"+{compiler.process(element.clauses, **options)}"
