import pytest

from app.auth.audit import Audit
from app.auth.permissions import ANONYMOUS, Caller
from app.database import clock
from app.schemas.access import Role
from tests.app.conftest import Keyed
from tests.app.support.guard import assert_problem

URL = "/v1/audit"


@pytest.fixture
def audit(keyed: Keyed) -> Audit:
    audit: Audit = keyed.app.state.audit
    return audit


def test_an_entry_has_all_that_was_written(
    keyed: Keyed, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller("4f1d8a02c7b96e35", "Überwachung", Role.OPERATOR)
    monkeypatch.setattr(clock, "now_ms", lambda: 1_764_000_000_123)
    audit.write(caller, "model.activate", "bottle/v1", "refused", {"reason": "Grün"}, "r-1")
    entry = keyed.client.get(URL, params={"limit": 1}, headers=keyed.show("admin")).json()["entries"][0]
    assert entry.pop("number") > 0
    assert entry == {
        "created": "2025-11-24T16:00:00.123Z",
        "actor": "4f1d8a02c7b96e35 Überwachung",
        "role": "operator",
        "action": "model.activate",
        "target": "bottle/v1",
        "outcome": "refused",
        "detail": {"reason": "Grün"},
        "request_id": "r-1",
    }


def test_pages_from_the_latest_to_the_first(keyed: Keyed, audit: Audit) -> None:
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


@pytest.mark.parametrize("wrong", [{"limit": "501"}, {"cursor": "x"}, {"target": "x" * 257}])
def test_refuses_what_is_out_of_range(keyed: Keyed, wrong: dict[str, str]) -> None:
    response = keyed.client.get(URL, params=wrong, headers=keyed.show("admin"))
    assert_problem(response, 400, "invalid-request")
