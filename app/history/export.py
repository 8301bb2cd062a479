"""Exports of the history: NDJSON, or CSV that is safe to open in a spreadsheet."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row

from app.database import clock
from app.history.queries import SUMMARY
from app.schemas import history as schemas
from app.schemas.predict import links_of
from app.schemas.reports import KindCount

# The beginning of a formula, also within a text: some spreadsheets split at other separators than commas.
# The last characters are full-width forms.
_FORMULA: Final = re.compile(r"^(?=[\t\r\n])|(^|[;,|\t]\s*)(?=[=+\-@＝＋－＠])")  # noqa: RUF001
_HEADER: Final = ("inspection_id", "created", *(column.name for column in SUMMARY[2:]))


def to_summary(row: Row[Any]) -> schemas.InspectionSummary:
    fields = dict(row._mapping)
    return schemas.InspectionSummary(
        **fields,
        inspection_id=row.id,
        created=clock.iso(row.created_ms),
        review=schemas.ReviewState(revision=row.review_revision, verdict=row.verdict, kind=row.kind),
        links=links_of(row.id),
    )


def export_ndjson(pages: Iterable[Sequence[Row[Any]]]) -> Iterator[bytes]:
    """Export one JSON object per line, as in /v1/inspections; yields one piece per page."""
    for rows in pages:
        yield "".join(f"{to_summary(row).model_dump_json()}\n" for row in rows).encode()


def export_csv(pages: Iterable[Sequence[Row[Any]]]) -> Iterator[bytes]:
    """Export CSV (RFC 4180) in UTF-8 with a header; yields one piece per page.

    An apostrophe is put before text that a spreadsheet would run as a formula.
    """
    yield _lines([_HEADER])
    for rows in pages:
        yield _lines([map(_cell, (row.id, clock.iso(row.created_ms), *row[2:])) for row in rows])


def export_kinds(kinds: Mapping[str, Sequence[KindCount]]) -> bytes:
    """Export the kinds of defect of each category as CSV."""
    fields = tuple(KindCount.model_fields)
    rows = [
        (category, *(getattr(kind, name) for name in fields))
        for category, found in kinds.items()
        for kind in found
    ]
    return _lines([("category", *fields), *(map(_cell, row) for row in rows)])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(value)
    return _FORMULA.sub(r"\1'", value) if isinstance(value, str) else value


def _lines(rows: Iterable[Iterable[object]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()
