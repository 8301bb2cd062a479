"""Query parameters of several routes: texts, stations, reasons and time spans."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from pydantic import BeforeValidator, Field

from app.database import clock
from app.errors.problems import Problem
from app.history.decision_counts import TimeSpan
from app.schemas.texts import MAX_TEXT, TEXT_PATTERN

# ISO 8601 has no year 10000.
_LAST_MS: Final = clock.from_datetime(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
_SHIFT_MS: Final = 8 * 3_600_000
_MAX_REPORT_MS: Final = (31 * 24 + 2) * 3_600_000  # a month in which summer time ends has an hour more


def text_query(description: str, example: str, *, min_length: int | None = None) -> Any:
    """Declare a text as a query parameter, within the length limit of all texts."""
    return Query(
        description=description,
        min_length=min_length,
        max_length=MAX_TEXT,
        pattern=TEXT_PATTERN,
        examples=[example],
    )


def _station_or_all_without(what: str) -> Any:
    return text_query(
        f"Station; without it, all stations with no {what} of their own.", "line-3", min_length=1
    )


OfStation = Annotated[str | None, text_query("Only inspections of this station.", "line-3")]
StationOfRegion = Annotated[str | None, _station_or_all_without("region")]
StationOfCalibration = Annotated[str | None, _station_or_all_without("calibration")]


MinMargin = Annotated[
    Annotated[float, Field(allow_inf_nan=False)] | None,
    Query(
        description="Least score minus the threshold of REJECT, negative for a PASS; needs `category`.",
        examples=[-0.5],
    ),
]
MaxMargin = Annotated[
    Annotated[float, Field(allow_inf_nan=False)] | None,
    Query(description="Largest score minus the threshold of REJECT; needs `category`.", examples=[0]),
]


def require_category_of_margin(category: str | None, *margins: float | None) -> None:
    """Raise the problem invalid-request for a margin of several categories at once."""
    if category is None and any(margin is not None for margin in margins):
        raise Problem(
            "invalid-request",
            "query parameters min_margin and max_margin: need `category`, because scores of different models "
            "do not compare",
        )


_REASON = Query(
    min_length=1, max_length=500, description="Reason for the audit log.", examples=["New lamp on line 3"]
)
Reason = Annotated[str, _REASON]
OptionalReason = Annotated[str | None, _REASON]


def _require_date(text: str) -> str:
    # pydantic would read digits alone as seconds since 1970.
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        raise ValueError("must be a time as 2026-11-25T06:00:00Z, or a day as 2026-11-25")
    return text


Time = Annotated[datetime, BeforeValidator(_require_date)]
From = Annotated[
    Time | None,
    Query(
        alias="from",
        description="Inspections from this time on; UTC unless it has an offset. A date means its beginning. "
        "Write + as %2B.",
        examples=["2026-11-25T06:00:00Z"],
    ),
]
To = Annotated[
    Time | None,
    Query(
        alias="to",
        description="Inspections before this time; by default now. A date means its beginning.",
        examples=["2026-11-25T14:00:00Z"],
    ),
]


def _span(default_ms: int | None, max_ms: int) -> Callable[..., Awaitable[TimeSpan]]:
    """Make a dependency for the requested span; by default a length up to now, or everything."""

    async def read_span(made_from: From = None, made_before: To = None) -> TimeSpan:
        to_ms = clock.now_ms() if made_before is None else clock.from_datetime(made_before)
        from_ms = to_ms - (default_ms or to_ms) if made_from is None else clock.from_datetime(made_from)
        if from_ms >= to_ms and made_from is not None:
            raise Problem("invalid-request", "query parameter from: must be before `to`")
        if to_ms - from_ms > max_ms:
            raise Problem("invalid-request", "query parameter from: a report covers 31 days at most")
        return TimeSpan(*(min(max(ms, 0), _LAST_MS) for ms in (from_ms, to_ms)))

    return read_span


AnySpan = Annotated[TimeSpan, Depends(_span(None, 2 * _LAST_MS))]
ShiftSpan = Annotated[TimeSpan, Depends(_span(_SHIFT_MS, _MAX_REPORT_MS))]
