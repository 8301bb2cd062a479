import re

from app.database import clock
from app.routes.pages.wall import SHOWN_INSPECTIONS
from tests.app.conftest import Keyed
from tests.app.routes.pages.rows import add, answered
from tests.app.support.pages import listed_inspections, read_page


def test_the_newest_come_first_and_no_more_than_fit(keyed: Keyed) -> None:
    made = add(keyed.database, *(answered() for _ in range(SHOWN_INSPECTIONS + 3)))
    text = read_page(keyed, "/")
    assert listed_inspections(text) == made[::-1][:SHOWN_INSPECTIONS]
    older = re.search(r'href="/\?before=([0-9a-f-]+)"', text)
    assert older is not None
    rest = read_page(keyed, "/", before=older[1])
    assert listed_inspections(rest) == made[:3][::-1]
    assert "wall.js" not in rest  # what is old stands still
    assert "wall.js" in text


def test_shows_what_was_chosen_and_links_carry_it_along(keyed: Keyed) -> None:
    wanted, *_ = add(
        keyed.database,
        answered(category="a", station="line 1", decision="REJECT"),
        answered(category="b", station="line 1", decision="REJECT"),
        answered(category="a", station="line 2", decision="REJECT"),
        answered(category="a", station="line 1"),
    )
    text = read_page(keyed, "/", category="a", station="line 1", decision="REJECT")
    assert listed_inspections(text) == [wanted]
    assert f"/inspections/{wanted}?category=a&amp;station=line+1&amp;decision=REJECT" in text
    assert '<option value="line 1" selected>' in text
    assert '<option value="a" selected>' in text  # there is no model of it any more
    assert len(listed_inspections(read_page(keyed, "/", category="", station="", decision=""))) == 4


def test_counts_the_last_hours(keyed: Keyed) -> None:
    long_ago = clock.now_ms() - 9 * 3_600_000
    add(
        keyed.database,
        *(answered(category="a") for _ in range(3)),
        answered(category="a", decision="REJECT", station="line 1"),
        answered(category="b", decision="REVIEW"),
        answered(category="a", decision="REJECT", at_ms=long_ago),
    )

    def counts(**query: str) -> list[str]:
        shown = re.findall(r'data-count="[A-Z]+">(\d+)<', read_page(keyed, "/", **query))
        again = keyed.client.get("/wall/counts", params=query, headers=keyed.show("viewer")).json()
        assert [str(again["decisions"][name]) for name in ("PASS", "REVIEW", "REJECT")] == shown
        return shown

    assert counts() == ["3", "1", "1"]
    assert counts(category="a") == ["3", "0", "1"]
    assert counts(station="line 1") == ["0", "0", "1"]
    assert counts(category="nothing") == ["0", "0", "0"]
    assert counts(decision="REJECT") == counts()


def test_trend_has_passed_and_all_inspections_by_half_hour(keyed: Keyed) -> None:
    minutes_ago = [(1, "PASS"), (2, "REJECT"), (45, "PASS"), (45, "PASS"), (9 * 60, "PASS")]
    now = clock.now_ms()
    add(
        keyed.database,
        *(answered(at_ms=now - 60_000 * ago, decision=decision) for ago, decision in minutes_ago),
    )
    query = {"decision": "REJECT"}  # does not change the yield
    figures = keyed.client.get("/wall/counts", params=query, headers=keyed.show("viewer")).json()
    assert figures["trend"] == [*[[0, 0]] * 14, [2, 2], [1, 2]]


def test_counts_are_those_of_the_keys_categories(keyed: Keyed) -> None:
    add(keyed.database, answered(category="tiny"), answered(category="secret"), answered(category="secret"))
    headers = keyed.show("limited")
    assert keyed.client.get("/wall/counts", headers=headers).json()["decisions"]["PASS"] == 1


def test_decision_has_word_and_symbol_beside_its_colour(keyed: Keyed) -> None:
    add(keyed.database, answered(decision="REJECT", verdict="good", review_revision=1))
    [card] = re.findall(r'<li class="inspection REJECT".*?</li>', read_page(keyed, "/"), re.DOTALL)
    assert ">✕<" in card
    assert ">Reject<" in card
    assert ">Good<" in card


def test_a_picture_that_is_no_longer_kept_is_not_asked_for(keyed: Keyed) -> None:
    add(keyed.database, answered(has_pictures=False))
    [card] = re.findall(r'<li class="inspection PASS".*?</li>', read_page(keyed, "/"), re.DOTALL)
    assert "thumbnail" not in card
    assert "Image no longer stored" in card
