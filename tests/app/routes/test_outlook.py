"""What other rates would do, over the wire: positions by the calibration in force, and refusals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.routes.outlook import MAX_RATES, RATES
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.calibration import conformal
from tests.app.history.rows import row
from tests.app.support.calibrations import good_images, post_calibration
from tests.app.support.services import keep, read_json

URL = "/v1/models/tiny/thresholds/outlook"


def get(client: TestClient, **query: Any) -> dict[str, Any]:
    return read_json(client, URL, **query)


def test_positions_follow_from_the_calibration_in_force(client: TestClient, store: Path) -> None:
    scores = bundle.read_manifest(models_folder.resolve(store, "tiny")).calibration.scores
    answer = get(client)
    assert [one["target_fpr"] for one in answer["positions"]] == sorted({0.1, *RATES})
    assert answer["target_fpr"] == 0.1
    assert [one["target_fpr"] for one in answer["positions"] if one["in_force"]] == [0.1]
    for one in answer["positions"]:
        wanted = conformal.compute_threshold(scores, one["target_fpr"])
        assert one["threshold"]["reject"] == wanted.reject
        assert one["threshold"]["certified"] is wanted.certified
        assert one["threshold"]["fpr_at_95_confidence"] == wanted.fpr_at_95_confidence
        assert one["overkill"]["reason"] == "there are no inspections"
    assert answer["window"]["inspections"] == 0
    assert answer["window"]["from"] is None


def test_what_would_have_been_decided(client: TestClient, first: str) -> None:
    limit = client.get("/v1/models/tiny/thresholds").json()["threshold"]["reject"]
    keep(
        client,
        *(row(version=first, score=limit - 50, verdict="good") for _ in range(9)),
        row(version=first, score=limit + 50, decision="REJECT", verdict="defect"),
        row(version="older", score=limit + 50),
    )
    for one in get(client)["positions"]:
        assert one["decisions"] == {"PASS": 9, "REVIEW": 0, "REJECT": 1}
        assert (one["changed"], one["changes"]) == (0, [])
        assert (one["overkill"]["value"], one["escape"]["value"]) == (0, 0)
    keep(client, row(version=first, score=limit + 1e-6, verdict="good"))
    answer = get(client)
    passed = answer["window"]["decisions"]["PASS"]
    assert passed == {"inspections": 10, "reviewed_good": 10, "reviewed_defect": 0}
    there = next(one for one in answer["positions"] if one["in_force"])
    assert there["changes"] == [{"taken": "PASS", "would": "REJECT", "inspections": 1}]
    assert there["overkill"]["value"] == pytest.approx(0.1)


@pytest.mark.usefixtures("no_lanes")
def test_scores_are_those_of_calibration_inspections_and_tests(client: TestClient, first: str) -> None:
    before = get(client)["scores"]
    assert len(before.pop("calibration")) == get(client)["positions"][0]["threshold"]["n_calibration"]
    assert not any(before.values())
    keep(
        client,
        row(version=first, score=1.00004, verdict="good"),
        row(version=first, score=9.0, verdict="defect"),
        row(version="older", score=5.0),
    )
    app: Any = client.app
    jobs = app.state.jobs
    job = replace(jobs.store.add("evaluate", "tiny", {}, "somebody"), state="succeeded")
    jobs.store.change(job, "queued")
    folder = jobs.folders.report(job) / "tiny" / first
    folder.mkdir(parents=True)
    (folder / "report.html").touch()
    lines = ["path,defect,score,p_value,decision", "a.png,,1.5,0.5,PASS", "b.png,hole,7.5,0.1,REJECT"]
    (folder / "scores.csv").write_text("\n".join(lines))
    scores = get(client)["scores"]
    assert (scores["inspections"], scores["defects"]) == ([9.0, 1.0], [9.0])
    assert (scores["test_good"], scores["test_defects"]) == ([1.5], [7.5])
    square = {"image": {"width": 64, "height": 64}, "polygons": [[[0, 0], [64, 0], [64, 64]]]}
    assert client.put("/v1/models/tiny/region", json=square).status_code == 200
    assert get(client)["scores"]["test_good"] == []  # evaluations ignore regions
    client.delete("/v1/models/tiny/region", headers={"If-Match": "*"})
    (folder / "scores.csv").write_text("nothing")
    assert get(client)["scores"]["test_good"] == []


def test_a_review_band_is_told_as_if_it_were_set(client: TestClient) -> None:
    assert get(client)["review_fpr"] is None
    answer = get(client, review_fpr=0.3)
    assert answer["review_fpr"] == 0.3
    by_rate = {one["target_fpr"]: one for one in answer["positions"]}
    assert by_rate[0.1]["threshold"]["review"] < by_rate[0.1]["threshold"]["reject"]
    wider = get(client, review_fpr=0.1)["positions"]
    assert {one["target_fpr"] for one in wider if not one["settable"]} == {0.1, 0.15, 0.2}
    assert client.get("/v1/models/tiny/thresholds").json()["review_fpr"] is None


def test_a_station_with_a_calibration_of_its_own_is_told_apart(client: TestClient, first: str) -> None:
    assert post_calibration(client, good_images(12), station="s").status_code == 201
    keep(client, row(version=first, station="s"), row(version=first, station="t"), row(version=first))
    others, own = get(client), get(client, station="s")
    assert others["stations"] == own["stations"] == ["s"]
    assert (others["window"]["inspections"], own["window"]["inspections"]) == (2, 1)
    assert own["positions"][0]["threshold"]["n_calibration"] == 12
    assert own["positions"][0]["threshold"]["calibration"]["source"] == "station"
    assert get(client, station="t")["window"]["inspections"] == 1


def test_scores_from_before_a_region_was_set_do_not_compare(client: TestClient, first: str) -> None:
    keep(client, row(version=first))
    assert get(client)["window"]["inspections"] == 1
    square = {"image": {"width": 64, "height": 64}, "polygons": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}
    keep(client, row(version=first, station="s"))
    assert client.put("/v1/models/tiny/region?station=s", json=square).status_code == 200
    assert get(client, station="t")["window"]["inspections"] == 0  # none of its own
    assert [get(client, **of)["window"]["inspections"] for of in ({}, {"station": "s"})] == [0, 0]
    assert client.put("/v1/models/tiny/region", json=square).status_code == 200
    assert get(client)["window"]["inspections"] == 0


def test_region_scores_before_a_calibration_are_excluded(client: TestClient, first: str) -> None:
    square = {"image": {"width": 64, "height": 64}, "polygons": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}
    assert client.put("/v1/models/tiny/region?station=s", json=square).status_code == 200
    keep(client, row(version=first, station="s"))
    assert get(client, station="s")["window"]["inspections"] == 1
    assert post_calibration(client, good_images(12)).status_code == 201
    assert get(client, station="s")["window"]["inspections"] == 0
    keep(client, row(version=first, station="s"))
    assert get(client, station="s")["window"]["inspections"] == 1
    match = {"If-Match": "*"}
    assert client.delete("/v1/models/tiny/calibrations", headers=match).status_code == 204
    assert get(client, station="s")["window"]["inspections"] == 0  # they were made by the one that is gone


@pytest.mark.parametrize(
    "query",
    [
        {"target_fpr": "0"},
        {"target_fpr": "1"},
        {"target_fpr": "nan"},
        {"target_fpr": ["0.1"] * (MAX_RATES + 1)},
        {"review_fpr": "1"},
        {"fpr": "0.1"},
    ],
)
def test_what_cannot_be_asked(client: TestClient, query: dict[str, Any]) -> None:
    response = client.get(URL, params=query)
    assert (response.status_code, response.json()["type"]) == (400, "invalid-request")
