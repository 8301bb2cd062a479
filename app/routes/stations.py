"""The station that something is set for, as it comes in a query."""

from typing import Annotated, Any

from fastapi import Query

from app.forms import MAX_TEXT, TEXT_PATTERN


def _of_those_without(what: str) -> Any:
    return Query(
        description=f"As it comes with pictures; left out: all stations that have no {what} of their own.",
        min_length=1,
        max_length=MAX_TEXT,
        pattern=TEXT_PATTERN,
        examples=["line-3"],
    )


StationOfRegion = Annotated[str | None, _of_those_without("region")]
StationOfCalibration = Annotated[str | None, _of_those_without("calibration")]
