"""The station that something is set for, as it comes in a query."""

from typing import Annotated, Any

from app.routes.texts import text_query


def _of_those_without(what: str) -> Any:
    meant = f"As it comes with pictures; left out: all stations that have no {what} of their own."
    return text_query(meant, "line-3", least=1)


StationOfRegion = Annotated[str | None, _of_those_without("region")]
StationOfCalibration = Annotated[str | None, _of_those_without("calibration")]
