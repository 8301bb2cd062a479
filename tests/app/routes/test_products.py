"""Products over REST: creating, changing and deleting them, and who may."""

import pytest
from starlette.testclient import TestClient

from tests.app.conftest import Keyed
from tests.app.support.services import list_actions, refusal_detail

URL = "/v1/products"


def test_product_is_created_changed_and_deleted(client: TestClient) -> None:
    created = client.post(URL, json={"name": "cap", "kinds": ["scratch"]})
    assert (created.status_code, created.headers["Location"]) == (201, f"{URL}/cap")
    body = created.json()
    assert (body["name"], body["kinds"], body["takeover"]) == ("cap", ["scratch"], "automatic")
    assert body["images"] == {"good": 0, "defect": 0, "excluded": 0, "findings": 0, "bytes": 0}
    assert (body["versions"], body["active"], body["checked"]) == ([], None, None)
    read = client.get(f"{URL}/cap").json()
    assert (read["teaching"]["next"], read["teaching"]["needed"]) == ("starter", 10)
    assert read["findings"] == {}
    assert read | {"teaching": None, "findings": None} == body
    assert client.get(URL).json()["products"] == [body]
    tag = created.headers["ETag"]
    refusal_detail(client.patch(f"{URL}/cap", json={"takeover": "manual"}), 428, "precondition-required")
    changed = client.patch(f"{URL}/cap", json={"takeover": "manual"}, headers={"If-Match": tag})
    assert (changed.json()["takeover"], changed.json()["kinds"]) == ("manual", ["scratch"])
    stale = client.patch(f"{URL}/cap", json={"kinds": []}, headers={"If-Match": tag})
    refusal_detail(stale, 412, "precondition-failed")
    assert client.delete(f"{URL}/cap").status_code == 204
    refusal_detail(client.get(f"{URL}/cap"), 404, "unknown-product")
    [entry] = list_actions(client, "product.create")
    assert (entry["target"], entry["outcome"]) == ("cap", "done")
    done = [entry for entry in list_actions(client, "product.change") if entry["outcome"] == "done"]
    before = {"kinds": ["scratch"], "takeover": "automatic"}
    assert done[0]["detail"] == {"takeover": "manual", "from": before}
    [entry] = list_actions(client, "product.delete")
    assert entry["detail"]["images"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"name": "Cap"},
        {"name": "../cap"},
        {"name": ".changing"},
        {"name": "backbones"},
        {"name": "cap", "kinds": ["a/b"]},
        {"name": "cap", "kinds": ["..\\b"]},
        {"name": "cap", "kinds": [".hidden"]},
        {"name": "cap", "kinds": ["Good"]},
        {"name": "cap", "kinds": ["ground_truth"]},
        {"name": "cap", "kinds": [" scratch"]},
        {"name": "cap", "kinds": ["x" * 61]},
        {"name": "cap", "kinds": [""]},
        {"name": "cap", "takeover": "sometimes"},
        {"name": "cap", "colour": "red"},
        {},
    ],
)
def test_impossible_product_is_refused(steady: TestClient, body: dict[str, object]) -> None:
    refusal_detail(steady.post(URL, json=body), 400, "invalid-request")


def test_product_with_versions_needs_a_reason_to_go(client: TestClient, first: str) -> None:
    tag = client.post(URL, json={"name": "tiny"}).headers["ETag"]
    body = client.get(f"{URL}/tiny").json()
    assert (body["versions"], body["active"]) == ([first], first)
    assert "reason" in refusal_detail(client.delete(f"{URL}/tiny"), 409, "conflict")
    stale = client.delete(f"{URL}/tiny?reason=old", headers={"If-Match": '"7"'})
    refusal_detail(stale, 412, "precondition-failed")
    assert client.delete(f"{URL}/tiny?reason=old", headers={"If-Match": tag}).status_code == 204
    assert client.get("/v1/models/tiny").json()["active"] == first


def test_key_sees_and_creates_products_of_its_categories(keyed: Keyed) -> None:
    admin, limited = keyed.show("admin"), keyed.show("limited")
    for name in ("tiny", "other"):
        assert keyed.client.post(URL, json={"name": name}, headers=admin).status_code == 201
    [seen] = keyed.client.get(URL, headers=limited).json()["products"]
    assert seen["name"] == "tiny"
    refused = keyed.client.post(URL, json={"name": "third"}, headers=limited)
    assert "not for category" in refusal_detail(refused, 403, "forbidden")
    assert keyed.client.get(f"{URL}/other", headers=limited).status_code == 403
