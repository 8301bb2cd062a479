"""The report on a shift as a page."""

import re
import zoneinfo
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest

from app.auth.audit import Audit
from app.auth.permissions import Caller
from app.database import clock
from app.schemas.access import Role
from tests.app.conftest import Keyed
from tests.app.history.rows import add, row
from tests.app.support.pages import read_page

HOUR = 3_600_000


def text(keyed: Keyed, role: str = "viewer", **query: str) -> str:
    return unescape(read_page(keyed, "/report", role, **query))


def test_nothing_inspected(keyed: Keyed) -> None:
    shown = text(keyed)
    assert "There are no inspections in this period." in shown
    assert "There are no changes" in shown


def test_a_shift_in_figures(keyed: Keyed) -> None:
    now = clock.now_ms()
    worst = row(now - HOUR, decision="REJECT", p_value=0.01, score=7.5, part_id="P-7", station="line-3")
    add(keyed.database, worst, *(row(now - 2 * HOUR) for _ in range(3)))
    shown = text(keyed)
    assert f'<img src="/inspections/{worst["id"]}/thumbnail.jpg"' in shown
    assert "Score 7.50" in shown
    assert "75%" in shown  # three of four
    assert shown.count('<time class="hour"') == 9
    assert "no station" in shown
    assert "unknown: too few reviews" in shown
    assert "v1 (4)" in shown


def test_kinds_of_defect(keyed: Keyed) -> None:
    add(keyed.database, *(row(verdict="defect", kind=kind) for kind in ("dent", "=1+1", "=1+1", None)))
    shown = text(keyed)
    assert re.findall(r'<th scope="row" class="wrap-anywhere">(.*?)</th>\s*<td class="wide">', shown) == [
        *("=1+1", "dent", "of no kind")
    ]
    [link] = re.findall(r'href="(/v1/reports/shift/kinds.csv[^"]*)"', shown)
    assert keyed.client.get(link, headers=keyed.show("viewer")).text.splitlines() == [
        "category,kind,inspections,share,cumulative_share",
        "tiny,'=1+1,2,0.5,0.5",
        "tiny,dent,1,0.25,0.75",
        "tiny,,1,0.25,1.0",
    ]


def test_hostile_names_are_text(keyed: Keyed) -> None:
    add(keyed.database, row(decision="REJECT", station="<script>1</script>", part_id="<img src=x>"))
    shown = read_page(keyed, "/report")
    assert "<script>1" not in shown
    assert "<img src=x>" not in shown


def test_who_changed_what_and_why(keyed: Keyed) -> None:
    app: Any = keyed.app
    caller = Caller("0123456789abcdef", "the engineer", Role.OPERATOR)
    before = {"target_fpr": None, "review_fpr": None}
    detail = {"from": before, "to": {"target_fpr": 0.005}, "reason": "Complaint 88"}
    Audit(app.state.database).write(caller, "model.thresholds", "tiny", "done", detail)
    shown = text(keyed)
    assert "<td>the engineer</td>" in shown
    assert ">the version's rate</td>" in shown
    assert "0.5% of good parts" in shown
    assert "Complaint 88" in shown


def test_of_a_station(keyed: Keyed) -> None:
    add(keyed.database, row(station="line-3"), row(station="line-4"), row(station="line-4"))
    shown = text(keyed, station="line-4")
    assert "Station line-4" in shown
    assert '<option value="line-4" selected>' in shown
    assert "v1 (2)" in shown
    assert "v1 (3)" in text(keyed, station="")


def test_days_are_those_of_the_readers_place(keyed: Keyed) -> None:
    begin = clock.from_datetime(datetime(2026, 10, 24, 22, tzinfo=UTC))
    add(keyed.database, row(begin + 24 * 3_600_000), row(begin + 25 * 3_600_000))
    asked = {"from": "2026-10-23T22:00:00Z", "to": "2026-10-27T23:00:00Z", "tz": "Europe/Berlin"}
    shown = read_page(keyed, "/report", **asked)
    days = re.findall(r'class="day" datetime="([^"]*)"', shown)
    assert [one[5:13] for one in days] == ["10-23T22", "10-24T22", "10-25T23", "10-26T23"]
    named = re.findall(r'class="day" datetime="[^"]*" data-date="([^"]*)"', shown)
    assert named == ["2026-10-24", "2026-10-25", "2026-10-26", "2026-10-27"]
    assert "Days in the time zone Europe/Berlin" in shown


@pytest.mark.parametrize("zone", ["Asia/Calcutta", "Europe/Atlantis", "../../etc/passwd", ""])
def test_zones_have_the_names_that_browsers_give_them(keyed: Keyed, zone: str) -> None:
    """As in a slim container, without zones of the machine; days of an unknown one are those of UTC."""
    add(keyed.database, row(clock.from_datetime(datetime(2026, 10, 24, 22, tzinfo=UTC))))
    asked = {"from": "2026-10-23T22:00:00Z", "to": "2026-10-27T23:00:00Z"}
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    try:
        shown = text(keyed, **asked, tz=zone)
    finally:
        zoneinfo.reset_tzpath()
    assert f"Days in the time zone {zone if zone == 'Asia/Calcutta' else 'UTC'}" in shown


def test_only_the_keys_own_categories(keyed: Keyed) -> None:
    add(keyed.database, row(category="theirs"), row(category="tiny"))
    shown = text(keyed, "limited")
    assert "tiny" in shown
    assert "theirs" not in shown
