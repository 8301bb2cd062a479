import re
from html import unescape
from typing import Any

import pytest

from app.database import clock
from app.routes.pages.wall import SHOWN_INSPECTIONS
from tests.app.conftest import Keyed
from tests.app.routes.pages.rows import add, answered
from tests.app.support.guard import assert_problem
from tests.app.support.pages import listed_inspections, read_page

THEN = 1_700_000_000_000


WANTED: dict[str, Any] = {
    "part_id": "P-7",
    "file_name": "top.png",
    "station": "line 1",
    "decision": "REJECT",
    "verdict": "defect",
    "warnings": ["near-threshold", "starter-model"],
    "margin": 0.5,
}


@pytest.mark.parametrize(
    "query",
    [
        {"part_id": "P-7"},
        {"file_name": "top.png"},
        {"verdict": "defect"},
        {"warning": "starter-model"},
        {"category": "tiny", "min_margin": 0.5, "max_margin": 0.5},
        {"from": clock.iso(THEN), "to": clock.iso(THEN + 1)},
    ],
    ids=lambda query: next(iter(query)),
)
def test_each_criterion_selects_and_is_carried_along(keyed: Keyed, query: dict[str, Any]) -> None:
    [wanted, _] = add(keyed.database, answered(at_ms=THEN, **WANTED), answered(margin=0.4))
    text = read_page(keyed, "/search", **query)
    assert listed_inspections(text) == [wanted]
    [link] = re.findall(rf'href="(/inspections/{wanted}[^"]*)"', text)
    page = read_page(keyed, unescape(link))
    [back] = re.findall(r'href="(/search\?[^"]*)"', page)
    assert listed_inspections(read_page(keyed, unescape(back))) == [wanted]
    [csv] = re.findall(r'href="(/v1/inspections\.csv[^"]*)"', text)
    lines = read_page(keyed, unescape(csv)).splitlines()
    assert [line[:36] for line in lines[1:]] == [wanted]


def test_unreviewed_and_empty_fields(keyed: Keyed) -> None:
    reviewed, waiting = add(keyed.database, answered(verdict="good"), answered())
    empty = dict.fromkeys(("part_id", "category", "decision", "warning", "from", "to", "min_margin"), "")
    assert listed_inspections(read_page(keyed, "/search", **empty)) == [waiting, reviewed]
    text = read_page(keyed, "/search", **empty, reviewed="false")
    assert listed_inspections(text) == [waiting]
    assert '/v1/inspections.csv?reviewed=false"' in text


def test_older_results_have_a_page_of_their_own(keyed: Keyed) -> None:
    made = add(keyed.database, *(answered(verdict="good") for _ in range(SHOWN_INSPECTIONS + 1)), answered())
    text = read_page(keyed, "/search", verdict="good")
    [before] = re.findall(r'href="/search\?verdict=good&amp;before=([0-9a-f-]+)"', text)
    assert listed_inspections(read_page(keyed, "/search", verdict="good", before=before)) == made[:1]


def test_margins_need_a_category_and_the_history_a_role(keyed: Keyed) -> None:
    for path in ("/search", "/v1/inspections", "/v1/inspections.csv"):
        response = keyed.client.get(path, params={"min_margin": 1}, headers=keyed.show("viewer"))
        assert response.status_code == 400
    assert "need `category`" in assert_problem(response, 400, "invalid-request")
    assert keyed.client.get("/search", headers=keyed.show("line")).status_code == 403
