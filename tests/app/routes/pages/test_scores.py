import re

from tests.app.conftest import Keyed
from tests.app.routes.pages.rows import add, answered
from tests.app.support.pages import read_page


def points(text: str) -> list[tuple[str, str]]:
    return re.findall(
        r'<a href="/inspections/([0-9a-f-]{36})[^"]*" tabindex="-1"><path class="point (\w+)"', text
    )


def test_latest_scores_are_drawn_in_order_with_links(keyed: Keyed) -> None:
    decisions = ["PASS", "REJECT", "REVIEW", "PASS"]
    made = add(keyed.database, *(answered(decision=name) for name in decisions))
    add(keyed.database, answered(category="other"))
    assert points(read_page(keyed, "/scores", category="tiny")) == list(zip(made, decisions, strict=True))
    latest = points(read_page(keyed, "/scores", category="tiny", last=2))
    assert [identifier for identifier, _ in latest] == made[2:]


def test_thresholds_are_those_of_their_time(keyed: Keyed) -> None:
    rows = [answered(reject=3.0), answered(reject=3.0), answered(reject=5.0, review=4.0, version="v2")]
    add(keyed.database, *rows)
    text = read_page(keyed, "/scores", category="tiny")
    reject = re.search(r'<path class="reject" d="(M12\.0 [\d.]+H[\d.]+L[\d.]+ [\d.]+H940\.0)"', text)
    assert reject is not None
    assert "Review threshold" in text
    assert "From here on version v2" in text


def test_the_table_has_the_same(keyed: Keyed) -> None:
    made = add(keyed.database, answered(score=1.25, part_id="P<1"), answered(decision="REJECT"))
    table = re.findall(r"<tbody>(.*)</tbody>", read_page(keyed, "/scores", category="tiny"), re.DOTALL)[0]
    assert re.findall(r"/inspections/([0-9a-f-]{36})", table) == made[::-1]
    assert "P&lt;1" in table
    assert "1.250" in table


def test_says_when_there_is_nothing(keyed: Keyed) -> None:
    for query in ({}, {"category": "tiny"}, {"category": "nothing"}):
        text = read_page(keyed, "/scores", **query)
        assert "There are no matching inspections yet" in text
        assert '<path class="point' not in text
