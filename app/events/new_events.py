"""Constructors of events for inspections, reviews and audited actions."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from app.database import clock
from app.events.log import NewEvent
from app.schemas.events import InspectionEvent, ModelEvent, ReviewEvent, ThresholdsEvent
from app.schemas.predict import links_of

_TUNED: Final[Mapping[str, Literal["rates", "calibration", "region"]]] = {
    "model.thresholds": "rates",
    "model.calibrate": "calibration",
    "model.region": "region",
}


def inspection_event(row: Mapping[str, Any]) -> NewEvent:
    links = links_of(row["id"])
    fields = {"inspection_id": row["id"], "created_at": clock.iso(row["created_ms"]), "links": links}
    data = InspectionEvent.model_validate({**row, **fields})
    return NewEvent("inspection", data.category, data.station, data.decision, data.model_dump_json())


def review_event(row: Mapping[str, Any], created_ms: int) -> NewEvent:
    fields = {"created_at": clock.iso(created_ms), "revision": row["review_revision"]}
    data = ReviewEvent.model_validate({**row, "inspection_id": row["id"], **fields})
    return NewEvent("review", data.category, data.station, data.decision, data.model_dump_json())


def act_events(action: str, target: str, detail: Mapping[str, Any], created_ms: int) -> list[NewEvent]:
    """Make the events of a completed action in the audit log; most actions have none."""
    category, _, version = target.partition("/")
    at = clock.iso(created_ms)
    if action == "model.serves":
        previous = detail.get("previous")
        model = ModelEvent(created_at=at, category=category, version=version, previous=previous)
        return [NewEvent("model", category, None, None, model.model_dump_json())]
    if action in _TUNED:
        tuned = ThresholdsEvent(created_at=at, category=category, what=_TUNED[action])
        return [NewEvent("thresholds", category, None, None, tuned.model_dump_json())]
    return []
