import pytest

from app.access import ANONYMOUS
from app.audit import Audit
from tests.app.conftest import Keyed
from tests.app.guarded import expect_problem

URL = "/v1/audit"


@pytest.fixture
def audit(keyed: Keyed) -> Audit:
    audit: Audit = keyed.app.state.audit
    return audit


def test_an_entry_has_all_that_was_written(keyed: Keyed, audit: Audit) -> None:
    audit.write(ANONYMOUS, "model.activate", "bottle/v1", "refused", {"reason": "Grün"}, "r-1")
    entry = keyed.client.get(URL, params={"limit": 1}, headers=keyed.show("admin")).json()["entries"][0]
    assert entry.pop("created").endswith("Z")
    assert entry.pop("number") > 0
    assert entry == {
        "actor": "anonymous",
        "role": "admin",
        "action": "model.activate",
        "target": "bottle/v1",
        "outcome": "refused",
        "detail": {"reason": "Grün"},
        "request_id": "r-1",
    }


def test_pages_and_filters(keyed: Keyed, audit: Audit) -> None:
    for i in range(7):
        audit.write(ANONYMOUS, "test.act", f"t{i % 2}", "done", {"i": i})
    seen: list[int] = []
    params: dict[str, str | int] = {"action": "test.act", "limit": 3}
    while True:
        page = keyed.client.get(URL, params=params, headers=keyed.show("admin")).json()
        seen += [entry["detail"]["i"] for entry in page["entries"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == [6, 5, 4, 3, 2, 1, 0]
    params = {"action": "test.act", "target": "t1"}
    page = keyed.client.get(URL, params=params, headers=keyed.show("admin")).json()
    assert [entry["detail"]["i"] for entry in page["entries"]] == [5, 3, 1]


@pytest.mark.parametrize("wrong", [{"limit": "501"}, {"cursor": "x"}, {"target": "x" * 257}])
def test_refuses_what_is_out_of_range(keyed: Keyed, wrong: dict[str, str]) -> None:
    response = keyed.client.get(URL, params=wrong, headers=keyed.show("admin"))
    expect_problem(response, 400, "invalid-request")


@pytest.mark.parametrize("role", ["line", "viewer", "operator", "limited"])
def test_is_for_administrators_of_everything_alone(keyed: Keyed, role: str) -> None:
    expect_problem(keyed.client.get(URL, headers=keyed.show(role)), 403, "forbidden")
