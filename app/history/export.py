"""The history as files: one JSON object a line, or a table that is safe to open in a spreadsheet."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Row

from app.database import clock
from app.history.queries import SUMMARY
from app.schemas import history as schemas
from app.schemas.predict import links_of

# A cell that begins with one of these is a formula to a spreadsheet, the last four in East Asian ones.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001
# Where a comma is no separator but a mark of decimals, spreadsheets split at others, and a cell begins there.
_LATER_FORMULA: Final = re.compile(r"([;,|\t]\s*)(?=[=+\-@])")
_HEADER: Final = ("inspection_id", "created", *(column.name for column in SUMMARY[2:]))


def summary(row: Row[Any]) -> schemas.InspectionSummary:
    """A row of `queries.SUMMARY` as it goes over the wire."""
    fields = dict(row._mapping)
    return schemas.InspectionSummary(
        **fields,
        inspection_id=row.id,
        created=clock.iso(row.created_ms),
        review=schemas.ReviewState(revision=row.review_revision, verdict=row.verdict),
        links=links_of(row.id),
    )


def ndjson(pages: Iterable[Sequence[Row[Any]]]) -> Iterator[bytes]:
    """Each inspection as in /v1/inspections, on a line of its own; a piece for every page."""
    for rows in pages:
        yield "".join(f"{summary(row).model_dump_json()}\n" for row in rows).encode()


def table(pages: Iterable[Sequence[Row[Any]]]) -> Iterator[bytes]:
    """CSV (RFC 4180) in UTF-8 with a line of column names; a piece for every page.

    Text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    yield _lines([_HEADER])
    for rows in pages:
        yield _lines([_cells(row) for row in rows])


def _cells(row: Row[Any]) -> list[object]:
    cells = [row.id, clock.iso(row.created_ms), *row[2:]]
    return [_safe(cell) if isinstance(cell, str) else _plain(cell) for cell in cells]


def _safe(text: str) -> str:
    text = f"'{text}" if text.startswith(_FORMULA) else text
    return _LATER_FORMULA.sub(r"\1'", text)


def _plain(cell: object) -> object:
    return str(cell).lower() if isinstance(cell, bool) else cell


def _lines(rows: Iterable[Sequence[object]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()
