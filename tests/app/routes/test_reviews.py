import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.database import clock
from tests.app.conftest import Keyed
from tests.app.history.rows import add, row
from tests.app.support.services import refusal_detail

GOOD = {"verdict": "good", "expected_revision": 0}


def path(identifier: str) -> str:
    return f"/v1/inspections/{identifier}/reviews"


def added(keyed: Keyed, **columns: Any) -> str:
    [identifier] = add(keyed.database, row(**columns))
    return identifier


def test_answered_inspection_can_be_reviewed_at_once(
    service: TestClient, tiny_images: dict[str, list[bytes]]
) -> None:
    answer = service.post(
        "/v1/models/tiny/predict", content=tiny_images["good"][0], headers={"Content-Type": "image/png"}
    )
    identifier = answer.json()["inspection_id"]
    response = service.post(path(identifier), json={**GOOD, "reviewer": "Ada", "note": "fine\nreally"})
    assert response.status_code == 201
    review = response.json()
    assert review.pop("created").endswith("Z")
    assert review == {
        "revision": 1,
        "verdict": "good",
        "kind": None,
        "reviewer": "Ada",
        "note": "fine\nreally",
        "key_id": None,
    }
    [listed] = service.get(path(identifier)).json()["reviews"]
    assert listed == response.json()


def test_a_later_revision_needs_to_know_of_the_earlier(keyed: Keyed) -> None:
    identifier = added(keyed)
    key = keyed.show("operator")
    assert keyed.client.post(path(identifier), json=GOOD, headers=key).status_code == 201
    again = keyed.client.post(path(identifier), json=GOOD, headers=key)
    assert (again.status_code, again.json()["type"]) == (409, "conflict")
    assert "revision 1 (verdict good)" in again.json()["detail"]
    changed = keyed.client.post(
        path(identifier), json={"verdict": "defect", "expected_revision": 1}, headers=key
    )
    assert changed.json()["revision"] == 2
    reviews = keyed.client.get(path(identifier), headers=key).json()["reviews"]
    assert [review["verdict"] for review in reviews] == ["good", "defect"]
    assert reviews[0]["key_id"] == keyed.keys["operator"].split("_")[1]


def test_defect_has_a_kind_of_the_product(keyed: Keyed) -> None:
    identifier, of_no_product = added(keyed), added(keyed, category="other")
    key = keyed.show("operator")
    keyed.client.post("/v1/products", json={"name": "tiny", "kinds": ["scratch", "dent"]}, headers=key)
    scratch = {"verdict": "defect", "kind": "scratch", "expected_revision": 0}
    for refused, place, words in (
        ({**scratch, "kind": "crack"}, identifier, "it has 'scratch', 'dent'"),
        ({**scratch, "verdict": "good"}, identifier, "no kind of defect"),
        (scratch, of_no_product, "'other' is no product"),
    ):
        response = keyed.client.post(path(place), json=refused, headers=key)
        assert words in refusal_detail(response, 400, "invalid-request")
    assert keyed.client.post(path(identifier), json=scratch, headers=key).json()["kind"] == "scratch"
    [listed] = keyed.client.get("/v1/inspections?verdict=defect", headers=key).json()["inspections"]
    assert listed["review"] == {"revision": 1, "verdict": "defect", "kind": "scratch"}
    again = {"verdict": "defect", "expected_revision": 1}
    assert keyed.client.post(path(identifier), json=again, headers=key).json()["kind"] is None
    assert keyed.client.get("/v1/inspections.csv", headers=key).text.count("scratch") == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"verdict": "fine", "expected_revision": 0}, "verdict"),
        ({"verdict": "good"}, "expected_revision: is required"),
        ({"verdict": "good", "expected_revision": -1}, "at least 0"),
        ({"verdict": "good", "expected_revision": 2**31}, "less than"),
        ({"verdict": "good", "expected_revision": True}, "whole number"),
        ({**GOOD, "reviewer": "a" * 257}, "256"),
        ({**GOOD, "note": "\x1b[31m"}, "note"),
        ({**GOOD, "note": "n" * 4001}, "4000"),
        ({**GOOD, "verdikt": "good"}, "verdikt: is unknown"),
        ([], "body"),
    ],
)
def test_what_is_no_review_is_refused(keyed: Keyed, body: Any, words: str) -> None:
    identifier = added(keyed)
    headers = keyed.show("operator")
    response = keyed.client.post(
        path(identifier), content=json.dumps(body), headers={**headers, "Content-Type": "application/json"}
    )
    assert (response.status_code, response.json()["type"]) == (400, "invalid-request")
    assert words in response.json()["detail"]
    assert keyed.client.get(path(identifier), headers=headers).json() == {"reviews": []}


@pytest.mark.parametrize("identifier", [pytest.param(clock.new_id(), id="unknown"), "x", "%00", "..%2f"])
def test_an_inspection_that_is_not_there(keyed: Keyed, identifier: str) -> None:
    for response in (
        keyed.client.post(path(identifier), json=GOOD, headers=keyed.show("admin")),
        keyed.client.get(path(identifier), headers=keyed.show("admin")),
    ):
        assert response.status_code == 404
        assert response.json()["type"] in ("unknown-inspection", "not-found")
