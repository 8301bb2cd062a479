"""The time and the station that a report or a list is about, as they come in a query."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import Query
from pydantic import BeforeValidator

from app.database import clock
from app.history.reports import Span
from app.problems import Problem
from app.routes.texts import text_query

# Ids begin with 1970, and ISO 8601 has no year 10000.
_LAST_MS: Final = clock.from_datetime(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


def _expect_date(text: str) -> str:
    # Digits alone would be taken for seconds since 1970: 20261125 for a day of that year.
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        raise ValueError("must be a time as 2026-11-25T06:00:00Z, or a day as 2026-11-25")
    return text


Time = Annotated[datetime, BeforeValidator(_expect_date)]
From = Annotated[
    Time | None,
    Query(
        alias="from",
        description="Inspections made at this time or later; UTC unless it says otherwise. Of a day, its "
        "beginning; in an address + is %2B.",
        examples=["2026-11-25T06:00:00Z"],
    ),
]
To = Annotated[
    Time | None,
    Query(
        alias="to",
        description="Inspections made before; up to now by default. Of a day, its beginning.",
        examples=["2026-11-25T14:00:00Z"],
    ),
]
OfStation = Annotated[str | None, text_query("Only inspections of this station.", "line-3")]


def span(made_from: datetime | None, made_before: datetime | None, length_ms: int | None) -> Span:
    """The time asked for; so long before its end where no begin is given, or from the first inspection on.

    Raises:
        Problem: invalid-request, if it ends before it begins.
    """
    to_ms = clock.now_ms() if made_before is None else clock.from_datetime(made_before)
    from_ms = clock.from_datetime(made_from) if made_from is not None else to_ms - (length_ms or to_ms)
    if from_ms >= to_ms and made_from is not None:
        raise Problem("invalid-request", "query parameter from: must be before `to`")
    return Span(*(min(max(ms, 0), _LAST_MS) for ms in (from_ms, to_ms)))
