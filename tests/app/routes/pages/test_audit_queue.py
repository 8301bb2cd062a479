import re
from typing import Any

import pytest

from tests.app.conftest import Keyed
from tests.app.routes.pages.rows import add, answered


def test_decision_is_hidden_until_the_verdict(keyed: Keyed) -> None:
    rejected: dict[str, Any] = {"decision": "REJECT", "score": 4.25, "audit": True}
    older, newer, other = add(keyed.database, answered(**rejected), answered(**rejected), answered())
    as_operator = keyed.show("operator")

    def page() -> tuple[str, str]:
        response = keyed.client.get("/audit", params={"category": "tiny"}, headers=as_operator)
        return response.url.path, response.text

    path, text = page()
    assert path == f"/inspections/{newer}"
    assert "picture.jpg" in text
    assert "To review: 2" in text
    for hidden in ("overlay.jpg", "<polygon", "4.25", "verdict-line REJECT", "<title>Reject"):
        assert hidden not in text
    review = {"verdict": "good", "expected_revision": 0}
    keyed.client.post(f"/v1{path}/reviews", json=review, headers=as_operator)
    text = keyed.client.get(path, params={"audit": True}, headers=as_operator).text
    assert "overlay.jpg" in text
    assert re.findall(r'id="next" href="([^?"]+)', text) == [f"/inspections/{older}"]
    assert page()[0] == f"/inspections/{older}"
    keyed.client.post(f"/v1/inspections/{older}/reviews", json=review, headers=as_operator)
    assert "Every inspection of the audit sample is reviewed." in page()[1]
    text = keyed.client.get(f"/inspections/{other}", params={"audit": True}, headers=as_operator).text
    assert "overlay.jpg" in text  # it was not drawn


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("line", 403), ("operator", 200)])
def test_queue_is_for_those_who_may_review(keyed: Keyed, role: str, status: int) -> None:
    add(keyed.database, answered(audit=True), answered(category="other", audit=True))
    assert keyed.client.get("/audit", headers=keyed.show(role)).status_code == status
    if role != "line":
        text = keyed.client.get("/", headers=keyed.show(role)).text
        assert ('id="audit"' in text) == (role == "operator")
    counts = keyed.client.get("/wall/counts", headers=keyed.show("limited"))
    assert counts.json()["unreviewed"] == 1
