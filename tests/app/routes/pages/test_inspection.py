import json
import re
from typing import Any

import pytest

from tests.app.conftest import Keyed
from tests.app.routes.pages.rows import add, answered
from tests.app.support.pages import read_page


def shown(keyed: Keyed, identifier: str, role: str = "viewer", **query: str) -> str:
    return read_page(keyed, f"/inspections/{identifier}", role, **query)


def beside(text: str) -> dict[str, str]:
    found = re.findall(r'id="(older|newer)" rel="\w+" href="/inspections/([0-9a-f-]{36})', text)
    return {str(name): str(identifier) for name, identifier in found}


def test_tells_all_that_there_is(keyed: Keyed) -> None:
    said: dict[str, Any] = {"part_id": "P-1", "station": "line-3", "product_id": "Q", "recipe_id": "R"}
    [identifier] = add(keyed.database, answered(decision="REJECT", score=4.25, p_value=0.04, **said))
    text = shown(keyed, identifier)
    for words in ("✕", "Reject", "P-1", "line-3", "Q", "R", "v1", "48</dd>", "12 ms"):
        assert words in text
    assert "The score 4.250 is above the threshold 3.000." in text
    assert "None of the 24 good parts in calibration scored this high." in text
    assert "at most 4% of good parts on average" in text
    assert 'points="10,10 20,10 20,30 "' in text
    assert f'href="/v1/inspections/{identifier}/source"' in text


@pytest.mark.parametrize(
    ("decision", "score", "review", "words"),
    [
        ("PASS", 1.0, None, "The score 1.000 is not above the threshold 3.000."),
        ("REVIEW", 2.5, 2.0, "above 2.000, but not above the threshold 3.000: a person should look"),
        ("REJECT", 9.0, 2.0, "The score 9.000 is above the threshold 3.000."),
    ],
)
def test_says_why(keyed: Keyed, decision: str, score: float, review: float | None, words: str) -> None:
    [identifier] = add(keyed.database, answered(decision=decision, score=score, review=review))
    assert words in shown(keyed, identifier)


@pytest.mark.parametrize(("decision", "outlined"), [("PASS", True), ("REJECT", False)])
def test_outlines_do_not_contradict_the_decision(keyed: Keyed, decision: str, outlined: bool) -> None:
    [identifier] = add(keyed.database, answered(decision=decision, score=1.0))
    text = shown(keyed, identifier)
    assert "Unusual places (1)" in text
    assert ("not unusual enough for the threshold" in text) is outlined


def test_warnings_are_explained(keyed: Keyed) -> None:
    codes = ["near-threshold", "unlike-training", "starter-model"]
    [identifier, other] = add(keyed.database, answered(warnings=codes, file_name="top.png"), answered())
    text = shown(keyed, identifier)
    for words in ("Close to the limit", "Another product?", "Starter model", "top.png"):
        assert words in text
    wall = keyed.client.get("/", headers=keyed.show("viewer")).text
    assert wall.count("<span>Close to the limit</span>") == 1  # in the list; the last part has none
    assert "notices" not in shown(keyed, other)


def test_leads_to_its_neighbours_among_those_that_were_chosen(keyed: Keyed) -> None:
    a, b, c, d = add(
        keyed.database, *(answered(category=name, station=name) for name in ("one", "other", "one", "other"))
    )
    assert beside(shown(keyed, b)) == {"older": a, "newer": c}
    assert beside(shown(keyed, c, category="one")) == {"older": a}
    assert beside(shown(keyed, a, station="one")) == {"newer": c}
    assert beside(shown(keyed, d, category="other", decision="REJECT")) == {}


def test_a_line_sees_the_inspection_and_nothing_of_the_history(keyed: Keyed) -> None:
    a, _ = add(keyed.database, answered(), answered())
    text = shown(keyed, a, "line")
    assert beside(text) == {}
    assert 'id="rates"' not in text
    assert "data-verdict" not in text


def test_shows_what_people_have_said(keyed: Keyed) -> None:
    [identifier] = add(keyed.database, answered())
    body = {"verdict": "defect", "expected_revision": 0, "reviewer": "<b>Ada</b>", "note": "a\nscratch"}
    keyed.client.post(f"/v1/inspections/{identifier}/reviews", json=body, headers=keyed.show("operator"))
    text = shown(keyed, identifier, "operator")
    assert "&lt;b&gt;Ada&lt;/b&gt;" in text
    assert "a\nscratch" in text
    assert 'data-revision="1"' in text
    assert re.search(r'data-verdict="defect" aria-pressed="true"', text)
    assert re.search(r'data-verdict="good" aria-pressed="false"', text)


def test_stays_when_its_picture_has_gone(keyed: Keyed) -> None:
    [identifier] = add(keyed.database, answered(has_pictures=False))
    text = shown(keyed, identifier)
    assert "The image is no longer stored" in text
    assert ".jpg" not in text


def test_what_cannot_be_promised_is_not(keyed: Keyed) -> None:
    row = answered()
    answer = json.loads(row["answer"])
    answer["threshold"] |= {"certified": False, "target_fpr": 0.01}
    row["answer"] = json.dumps(answer)
    [identifier] = add(keyed.database, row)
    assert "The set rate is 1%" in shown(keyed, identifier)
    assert "at most 4% of good parts on average; with 95 % confidence at most 12%" in shown(keyed, identifier)


def test_reviewer_is_led_to_the_next_without_a_review(keyed: Keyed) -> None:
    a, b, c, other = add(
        keyed.database,
        *(answered(category="one", verdict=verdict) for verdict in (None, "good", None)),
        answered(category="other"),
    )

    def following(identifier: str, **query: str) -> list[str]:
        return re.findall(r'id="next" href="/inspections/([0-9a-f-]{36})', shown(keyed, identifier, **query))

    assert following(b, role="viewer") == []
    assert following(b, role="operator") == [a]  # the next older one
    assert following(a, role="operator") == [other]  # else the newest
    assert following(a, role="operator", category="one") == [c]
    assert following(other, role="operator", category="other") == []


def test_kinds_of_the_product_are_offered(keyed: Keyed) -> None:
    [identifier] = add(keyed.database, answered(verdict="defect", kind="dent"))
    assert "data-kind" not in shown(keyed, identifier, "operator")
    product = {"name": "tiny", "kinds": ["scratch", "dent"]}
    keyed.client.post("/v1/products", json=product, headers=keyed.show("operator"))
    text = shown(keyed, identifier, "operator")
    assert re.findall(r'data-kind="(\w+)" aria-pressed="(\w+)"', text) == [
        ("scratch", "false"),
        ("dent", "true"),
    ]
    assert "Reviewed: Defect, dent." in text
