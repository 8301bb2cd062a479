"""What SQLite's planner is to be told: it knows nothing of how many rows a value has.

PostgreSQL keeps statistics of every column. SQLite has some only after ANALYZE, which nothing here runs, for
a plan would then change with the day on which it last ran.
"""

from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, FunctionElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

T = TypeVar("T")


class unindexed(FunctionElement[T], Generic[T]):  # noqa: N801  (reads as a function of SQL)
    """A column that is only compared in rows which an index on others has found.

    To SQLite an operator "+" before a column says so ("The SQLite Query Optimizer Overview", section
    "Disqualifying WHERE Clause Terms Using Unary-"+"").
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
