"""The report on a shift: what it counts, by hand, and what was changed meanwhile."""

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from app.auth.audit import Audit
from app.auth.permissions import ANONYMOUS
from flows.fastflow.bundle import models_folder
from tests.app.support.bundles import upload_copy
from tests.app.support.services import read_json
from tests.support.waiting import eventually

SHIFT = "/v1/reports/shift"


def test_what_was_changed_meanwhile(client: TestClient, store: Path) -> None:
    before = models_folder.active_version(store, "tiny")
    upload_copy(client, store, "20990101T000000-abcdef")
    change = {"target_fpr": 0.2, "reason": "fewer false rejects"}
    url = "/v1/models/tiny/thresholds"
    headers = {"If-Match": client.get(url).headers["ETag"]}
    assert client.patch(url, json=change, headers=headers).status_code == 200
    assert client.patch(url, json=change, headers=headers).status_code == 412
    square = {"image": {"width": 64, "height": 64}, "polygons": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}
    region = "/v1/models/tiny/region?station=s"
    assert client.put(region, json=square).status_code == 200
    assert client.delete(region, headers={"If-Match": "*"}).status_code == 204
    activate = "/v1/models/tiny/versions/20990101T000000-abcdef:activate"
    assert client.post(activate).status_code == 200
    assert client.post("/v1/models/tiny:rollback").status_code == 200
    changes = read_json(client, SHIFT)["changes"]
    told = [one for one in changes if one["action"] != "model.serves"]  # found later
    names = ("action", "target", "station", "before", "after")
    was, now = {"version": before}, {"version": "20990101T000000-abcdef"}
    rates = [{"target_fpr": rate, "review_fpr": None} for rate in (None, 0.2)]
    assert [tuple(one[name] for name in names) for one in told] == [
        ("model.thresholds", "tiny", None, *rates),
        ("model.region", "tiny", "s", {"region": "none"}, {"region": "set"}),
        ("model.region", "tiny", "s", {"region": "set"}, {"region": "none"}),
        ("model.activate", "tiny/20990101T000000-abcdef", None, was, now),
        ("model.rollback", "tiny", None, now, was),
    ]
    assert [one["reason"] for one in told] == ["fewer false rejects", *[None] * 4]
    assert {one["actor"] for one in told} == {"anonymous"}


def test_of_many_changes_the_latest_hundred_are_told(client: TestClient) -> None:
    app: Any = client.app
    log = Audit(app.state.database)
    eventually(lambda: len(read_json(client, SHIFT)["changes"]) == 1)  # the first version serves
    for number in range(99):
        log.write(ANONYMOUS, "model.activate", f"tiny/v{number}", "done")
    answer = read_json(client, SHIFT)
    assert (len(answer["changes"]), answer["more_changes"]) == (100, False)
    log.write(ANONYMOUS, "model.activate", "tiny/v99", "done")
    answer = read_json(client, SHIFT)
    assert [one["target"] for one in answer["changes"]] == [f"tiny/v{n}" for n in range(100)]
    assert answer["more_changes"]
