import json

import pytest

from app.auth.audit import Audit
from app.auth.permissions import ANONYMOUS
from app.database.engine import Database
from app.events import log
from app.events.log import NumberedEvent
from app.events.new_events import act_events, inspection_event
from app.history import reviews
from tests.app.history.rows import add, row


def events(database: Database) -> list[NumberedEvent]:
    with database.read() as connection:
        return log.read(connection, 0, 100)


def test_inspection_is_an_event() -> None:
    one = row(1_700_000_000_123, category="bottle", station="s", part_id="P", decision="REJECT")
    new = inspection_event(one)
    assert (new.kind, new.category, new.station, new.decision) == ("inspection", "bottle", "s", "REJECT")
    assert "\n" not in new.data
    data = json.loads(new.data)
    assert data["inspection_id"] == one["id"]
    assert data["created_at"] == "2023-11-14T22:13:20.123Z"
    assert data["links"]["map"] == f"/v1/inspections/{one['id']}/map.npy"
    assert set(data) == {
        *("inspection_id", "created_at", "category", "version", "station", "part_id"),
        *("file_name", "decision", "warnings", "score", "p_value", "audit", "links"),
    }


def test_a_review_is_an_event_of_its_transaction(database: Database) -> None:
    [identifier] = add(database, row(category="bottle", station="s", decision="REVIEW"))
    review = reviews.add_review(database, ANONYMOUS, identifier, "good", 0, "somebody", "a note")
    (event,) = events(database)
    assert (event.kind, event.category, event.station, event.decision) == ("review", "bottle", "s", "REVIEW")
    data = json.loads(event.data)
    assert data == {
        "inspection_id": identifier,
        "created_at": review.created,
        "category": "bottle",
        "station": "s",
        "decision": "REVIEW",
        "revision": 1,
        "verdict": "good",
        "kind": None,
    }
    with pytest.raises(Exception, match="revision 1"):
        reviews.add_review(database, ANONYMOUS, identifier, "good", 0)
    assert len(events(database)) == 1


@pytest.mark.parametrize(
    ("action", "what"),
    [("model.thresholds", "rates"), ("model.calibrate", "calibration"), ("model.region", "region")],
)
def test_completed_tuning_is_an_event(database: Database, action: str, what: str) -> None:
    audit = Audit(database)
    audit.write(ANONYMOUS, action, "bottle", "begun")
    audit.write(ANONYMOUS, action, "bottle", "refused", {"problem": "conflict"})
    assert events(database) == []
    audit.write(ANONYMOUS, action, "bottle", "done", {"reason": "not for everybody"})
    (event,) = events(database)
    assert (event.kind, event.category) == ("thresholds", "bottle")
    data = json.loads(event.data)
    assert (data["category"], data["what"]) == ("bottle", what)
    assert set(data) == {"created_at", "category", "what"}


def test_serving_version_is_an_event(database: Database) -> None:
    Audit(database).write(ANONYMOUS, "model.serves", "bottle/v2", "done", {"sha256": "x", "previous": "v1"})
    (event,) = events(database)
    data = json.loads(event.data)
    assert event.kind == "model"
    assert (data["category"], data["version"], data["previous"]) == ("bottle", "v2", "v1")


@pytest.mark.parametrize("action", ["model.activate", "key.create", "backup.create", ""])
def test_other_actions_are_no_events(action: str) -> None:
    assert act_events(action, "bottle/v2", {}, 0) == []
