import io
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert
from starlette.testclient import TestClient

from app.database import clock
from app.database.tables import retention
from flows.fastflow.imaging import decoder
from tests.app.conftest import Keyed, history_of
from tests.app.history.rows import add, row
from tests.app.support.calibrations import good_images, post_calibration
from tests.app.support.services import create_service, inspect_and_review, keep, predict
from tests.conftest import picture, png
from tests.support.waiting import eventually

Images = dict[str, list[bytes]]
HOUR = 3_600_000
RATES = "/v1/models/tiny/rates"
SHIFT = "/v1/reports/shift"


@pytest.fixture
def client(store: Path) -> Iterator[TestClient]:
    with create_service(store, drift_window=20) as client:
        yield client


def wait_for_drift(client: TestClient, told: Callable[[dict[str, Any]], bool], **query: str) -> None:
    """Wait until drift has heard of all that was answered: at each server, if there are two."""
    reports = partial(client.get, "/v1/models/tiny/drift", params=query)
    eventually(lambda: all(told(reports().json()) for _ in range(2)))


def test_rates_of_reviewed_inspections(client: TestClient) -> None:
    keep(client, *(row() for _ in range(400)), *(row(verdict="good") for _ in range(100)))
    keep(client, row(decision="REJECT", verdict="good"))
    keep(client, *(row(decision="REJECT", verdict="defect") for _ in range(9)))
    answer = client.get(RATES).json()
    assert answer["decisions"] == {
        "PASS": {"inspections": 500, "reviewed_good": 100, "reviewed_defect": 0},
        "REVIEW": {"inspections": 0, "reviewed_good": 0, "reviewed_defect": 0},
        "REJECT": {"inspections": 10, "reviewed_good": 1, "reviewed_defect": 9},
    }
    assert answer["overkill"]["value"] == pytest.approx(1 / 501)
    assert 0 < answer["overkill"]["low"] < 1 / 501 < answer["overkill"]["high"] < 0.02
    assert answer["escape"]["value"] == 0
    assert answer["escape"]["high"] > 0.5  # 100 of 500 without a defect do not tell much of 9 defects
    assert answer["audit"] is None


def test_rates_of_the_audit_sample_alone(client: TestClient) -> None:
    keep(client, row(verdict="defect"), *(row(audit=True, verdict="good") for _ in range(9)))
    keep(client, row(decision="REJECT", audit=True, verdict="good"), row(audit=True))
    for answer in (client.get(RATES).json(), client.get(SHIFT).json()["categories"][0]):
        audit = answer["audit"]
        assert (audit["decisions"]["PASS"]["inspections"], audit["unreviewed"]) == (10, 1)
        assert audit["overkill"]["value"] == pytest.approx(1 / 11)  # of 10 that passed, 9 are reviewed
        assert audit["escape"]["reason"] == "no part was reviewed as defect"
        assert answer["escape"]["value"] == 1
    metrics = client.get("/metrics").text
    assert 'flowgauge_error_rate{category="tiny",kind="escape",source="reviews"} 1.0' in metrics
    assert 'flowgauge_error_rate{category="tiny",kind="overkill",source="audit"} 0.09' in metrics


def test_rates_begin_after_what_retention_has_deleted(client: TestClient) -> None:
    now = clock.now_ms()
    keep(client, row(now - 5 * HOUR, decision="REJECT", audit=True), row(now - 3 * HOUR))
    with history_of(client).database.write() as connection:
        before = now - 4 * HOUR
        values = {"decision": "PASS", "last_before_ms": before, "deleted_before_ms": before}
        connection.execute(insert(retention).values(values))
    answer = client.get(RATES, params={"from": clock.iso(now - 6 * HOUR)}).json()
    assert answer["from"] == clock.iso(now - 4 * HOUR)
    assert [counts["inspections"] for counts in answer["decisions"].values()] == [1, 0, 0]
    assert answer["audit"]["from"] == clock.iso(now - 6 * HOUR)  # nothing of the sample was deleted
    assert [counts["inspections"] for counts in answer["audit"]["decisions"].values()] == [0, 0, 1]


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"from": "9999-12-31T23:59:59Z"},
        {"from": "yesterday"},
        {"to": "\0"},
    ],
)
@pytest.mark.parametrize("path", [RATES, SHIFT])
def test_times_that_are_none_are_refused(client: TestClient, path: str, query: dict[str, str]) -> None:
    response = client.get(path, params=query)
    assert (response.status_code, response.json()["type"]) == (400, "invalid-request")


@pytest.mark.parametrize("name", ["from", "to"])
@pytest.mark.parametrize("number", ["20261125", "-5"])
@pytest.mark.parametrize("path", [RATES, "/v1/inspections.csv"])
def test_numbers_are_no_times(service: TestClient, path: str, number: str, name: str) -> None:
    response = service.get(path, params={name: number})
    assert (response.status_code, response.json()["type"]) == (400, "invalid-request")
    wanted = f"query parameter {name}: must be a time as 2026-11-25T06:00:00Z, or a day as 2026-11-25"
    assert response.json()["detail"] == wanted


def test_a_shift_in_numbers(client: TestClient) -> None:
    now = clock.now_ms()
    keep(client, row(now - 9 * HOUR), row(now - HOUR, version="v2"), row(now - HOUR, decision="REVIEW"))
    keep(client, row(now - HOUR, category="other", station="line-3", verdict="good"))
    answer = client.get(SHIFT).json()
    assert [(c["category"], c["versions"]) for c in answer["categories"]] == [
        ("other", {"v1": 1}),
        ("tiny", {"v1": 1, "v2": 1}),
    ]
    other = answer["categories"][0]
    assert (other["overkill"]["value"], other["escape"]["reason"]) == (0, "no part was reviewed as defect")
    longer = {"from": clock.iso(now - 10 * HOUR), "station": "line-3"}
    assert [c["category"] for c in client.get(SHIFT, params=longer).json()["categories"]] == ["other"]
    assert client.get(SHIFT, params={"from": "2020-01-01T00:00:00Z"}).status_code == 400


def test_a_shift_shows_only_the_keys_own_categories(keyed: Keyed) -> None:
    add(keyed.database, row(), row(category="other"))
    for role, expected in (("viewer", ["other", "tiny"]), ("limited", ["tiny"])):
        answer = keyed.client.get(SHIFT, headers=keyed.show(role)).json()
        assert [c["category"] for c in answer["categories"]] == expected


@pytest.mark.parametrize("what", ["rates", "drift", "training-set"])
@pytest.mark.parametrize("category", ["nothing", "UPPER"])
def test_a_category_that_never_was(client: TestClient, category: str, what: str) -> None:
    response = client.get(f"/v1/models/{category}/{what}")
    assert (response.status_code, response.json()["type"]) == (404, "unknown-model")


def test_drift_is_told_from_real_inspections(client: TestClient) -> None:
    answer = client.get("/v1/models/tiny/drift").json()
    assert answer["inspections"] == 0
    assert (answer["alarm"], answer["statistics"]) == (False, [])
    for seed in range(20):
        predict(client, png(picture(3000 + seed)), store="true")
    wait_for_drift(client, lambda report: report["inspections"] == 20)
    answer = client.get("/v1/models/tiny/drift").json()
    assert (answer["alarm"], answer["alarm_since"]) == (False, None)
    assert [one["name"] for one in answer["statistics"]] == [
        "score",
        *(f"features of scale {scale}, {what}" for scale in (0, 1) for what in ("mean", "deviation")),
    ]
    for seed in range(20):  # the light has changed
        darker = (0.4 * picture(4000 + seed)).astype(np.uint8)
        predict(client, png(darker), store="true")
    wait_for_drift(client, lambda report: max(one["distance"] for one in report["statistics"]) == 1.0)
    answer = client.get("/v1/models/tiny/drift").json()
    assert answer["alarm"]
    assert answer["alarm_since"] > answer["since"][:4]


def test_alarm_of_a_station_appears_wherever_drift_does(client: TestClient) -> None:
    assert post_calibration(client, good_images(60), station="line-3").status_code == 201

    def inspect(light: float, station: str, seed: int) -> None:
        data = png((light * picture(seed)).astype(np.uint8))
        files = {"file": ("a.png", data)}
        client.post("/v1/models/tiny/predict", files=files, data={"station": station})

    for seed in range(20):
        inspect(1.0, "line-1", 3000 + seed)
        inspect(0.4, "line-3", 4000 + seed)
    wait_for_drift(client, lambda report: report["inspections"] == 20)
    wait_for_drift(client, lambda report: report["inspections"] == 20, station="line-3")
    drift = "/v1/models/tiny/drift"
    others, own = client.get(drift).json(), client.get(drift, params={"station": "line-3"}).json()
    told = [(one["station"], one["alarm"], one["alarming_stations"]) for one in (others, own)]
    assert told == [(None, False, ["line-3"]), ("line-3", True, ["line-3"])]
    metrics = client.get("/metrics").text
    assert 'flowgauge_drift_alarm{category="tiny",station=""} 0.0' in metrics
    assert 'flowgauge_drift_alarm{category="tiny",station="line-3"} 1.0' in metrics
    assert 'flowgauge_drift_distance{category="tiny",station="line-3",statistic="score"}' in metrics

    def in_report(**query: str) -> tuple[bool, str | None]:
        [category] = client.get(SHIFT, params=query).json()["categories"]
        return category["drift"]["alarm"], category["drift"]["station"]

    assert in_report() == (True, "line-3") == in_report(station="line-3")
    assert in_report(station="line-1") == (False, None)
    assert client.get("/wall/counts").json()["drift"] == [{"category": "tiny", "station": "line-3"}]
    assert client.get("/wall/counts?station=line-1").json()["drift"] == []
    for path in ("/products", "/models/tiny"):
        shown = " ".join(unescape(client.get(path, headers={"Accept": "text/html"}).text).split())
        assert "line-3: The latest parts differ from the calibration images" in shown
        assert "</span> The latest 20 parts look like the calibration images" in shown
    report = " ".join(unescape(client.get("/report", headers={"Accept": "text/html"}).text).split())
    assert "line-3: alarm since" in report


def test_the_training_set_of_real_inspections(client: TestClient, tiny_images: Images) -> None:
    for data, verdict in zip(
        [*tiny_images["good"][:2], *tiny_images["defect"][:2]], ("good", "defect") * 2, strict=True
    ):
        inspect_and_review(client, data, verdict)
    response = client.get("/v1/models/tiny/training-set")
    assert response.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.content)) as file:
        found = [file.read(name) for name in file.namelist()]
        assert all(name.startswith("tiny/train/good/") for name in file.namelist())
    assert found == [tiny_images["good"][0], tiny_images["defect"][0]]
    assert decoder.decode_image(found[0]).shape == (64, 64, 3)
