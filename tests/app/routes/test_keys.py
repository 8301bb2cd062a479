from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.schemas.access import Role
from tests.app.conftest import Keyed
from tests.app.support.guard import SESSION_URL, assert_problem

URL = "/v1/keys"


def test_a_key_is_made_shown_once_and_opens_the_service_at_once(keyed: Keyed) -> None:
    admin = keyed.show("admin")
    body = {
        "role": "line",
        "name": "Linie 3",
        "categories": ["grid", "bottle"],
        "expires_days": 2,
        "requests_per_minute": 600,
    }
    response = keyed.client.post(URL, json=body, headers=admin)
    assert response.status_code == 201
    made = response.json()
    text = made.pop("key")
    assert (made["role"], made["name"], made["requests_per_minute"]) == ("line", "Linie 3", 600)
    assert made["categories"] == ["bottle", "grid"]
    assert made["valid"]
    assert made["revoked"] is None
    expires = datetime.fromisoformat(made["expires"]) - datetime.fromisoformat(made["created"])
    assert expires == timedelta(days=2)
    assert abs(datetime.fromisoformat(made["created"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert keyed.client.get(response.headers["Location"], headers=admin).json() == made
    listed = keyed.client.get(URL, headers=admin)
    assert made in listed.json()["keys"]
    assert text[20:] not in listed.text
    session = keyed.client.get(SESSION_URL, headers={"X-API-Key": text}).json()
    assert session["categories"] == ["bottle", "grid"]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"role": "root"}, {"name": "a\u202eb"}, {"name": 7}, {"categories": ["../x"]}, {"id": "0" * 16}],
)
def test_refuses_what_is_out_of_range(keyed: Keyed, wrong: dict[str, object]) -> None:
    body = {"role": "line", "name": "name", **wrong} if wrong else {}
    response = keyed.client.post(URL, json=body, headers=keyed.show("admin"))
    detail = assert_problem(response, 400, "invalid-request")
    assert (next(iter(wrong)) if wrong else "role") in detail
    assert len(keyed.client.get(URL, headers=keyed.show("admin")).json()["keys"]) == len(Role) + 1


@pytest.mark.parametrize(
    ("key_id", "status"), [("0" * 16, 404), ("%00", 400), ("0" * 17, 400), ("0" * 15 + "%0a", 400)]
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_there_is_no_such_key(keyed: Keyed, method: str, key_id: str, status: int) -> None:
    response = keyed.client.request(method, f"{URL}/{key_id}", headers=keyed.show("admin"))
    assert_problem(response, status, "not-found" if status == 404 else "invalid-request")


def test_the_first_key_must_be_able_to_make_others(keyless: httpx.Client) -> None:
    for body in ({"role": "line"}, {"role": "operator"}, {"role": "admin", "categories": ["bottle"]}):
        response = keyless.post(URL, json={"name": "first", **body})
        assert_problem(response, 409, "conflict")
    assert keyless.get(URL).json() == {"keys": []}
    assert keyless.post(URL, json={"name": "first", "role": "admin"}).status_code == 201


def test_every_change_leads_to_who_made_it(keyed: Keyed) -> None:
    admin = keyed.show("admin")
    new = {"role": "line", "name": "l", "categories": ["bottle"]}
    made = keyed.client.post(URL, json=new, headers=admin | {"X-Request-ID": "made-1"}).json()
    keyed.client.delete(f"{URL}/{made['id']}", headers=admin | {"X-Request-ID": "revoked-1"})
    entries = keyed.client.get("/v1/audit", params={"target": made["id"]}, headers=admin).json()["entries"]
    actor = f"{keyed.key_id('admin')} the admin"
    assert [(e["action"], e["actor"], e["request_id"], e["detail"]) for e in entries] == [
        ("key.revoke", actor, "revoked-1", {"name": "l", "role": "line"}),
        ("key.create", actor, "made-1", {**new, "expires": None, "requests_per_minute": None}),
    ]


def test_what_is_refused_is_written_down_too(keyed: Keyed) -> None:
    admin = keyed.show("admin")
    own = keyed.key_id("admin")
    for key_id, status in ((own, 409), ("0" * 16, 404)):
        assert keyed.client.delete(f"/v1/keys/{key_id}", headers=admin).status_code == status
        answer = keyed.client.get("/v1/audit", params={"target": key_id}, headers=admin).json()
        told = [(one["action"], one["outcome"]) for one in answer["entries"]]
        assert ("key.revoke", "refused") in told
        assert ("key.revoke", "done") not in told
        [entry] = [one for one in answer["entries"] if one["action"] == "key.revoke"]
        assert entry["detail"]["problem"] == ("conflict" if status == 409 else "not-found")
        assert entry["request_id"]
