"""Models, thresholds, regions, the shift report: a real server, a real browser, what an engineer does."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from app.web import messages
from bench.service.server import Server
from flows.fastflow import bundle, models_folder
from tests.conftest import picture, png
from tests.system.pages import (
    PHONE,
    TIMEOUT_MS,
    inspect,
    opened,
    serious,
    site,
    until_held,
    zone_by_day,
)

expect.set_options(timeout=TIMEOUT_MS)
Images = dict[str, list[bytes]]
HOME = "/v1/models/tiny"
LATER = "20990101T000000-abcdef"
PAGE = "/models/tiny"


@dataclass(frozen=True)
class Served:
    """A server with two versions of the tiny model and a reviewed history; the version that serves."""

    url: str
    client: httpx.Client
    version: str

    def rates(self) -> dict[str, Any]:
        """The thresholds that are set."""
        answer: dict[str, Any] = self.client.get(f"{HOME}/thresholds").json()
        return answer


def add_version(models: Path, report: bytes) -> None:
    """The tiny model once more, as a later version whose report has a page."""
    copy = shutil.copytree(models_folder.resolve(models, "tiny"), models / "tiny" / LATER)
    (copy / "report/report.html").write_bytes(report)
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    manifest["files"]["report/report.html"] = hashlib.sha256(report).hexdigest()
    (copy / bundle.MANIFEST).write_text(json.dumps(manifest | {"version": LATER}))


@pytest.fixture(scope="module")
def served(
    tiny_bundle_store: Path, tiny_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    models = shutil.copytree(tiny_bundle_store, folder / "models")
    add_version(models, b"<title>as made</title><p>Trained.</p><script>document.title = 'ran'</script>")
    with site(Server(models, folder)) as made:
        client = made.client
        for verdict in ("good", "defect"):
            for i, data in enumerate(tiny_images[verdict]):
                answer = inspect(client, data, part_id=f"P-{verdict}-{i}", station=f"line-{i % 2}")
                said = {"verdict": verdict, "expected_revision": 0}
                reviewed = client.post(f"/v1/inspections/{answer['inspection_id']}/reviews", json=said)
                assert reviewed.is_success, reviewed.text
        version = client.get(HOME).json()["active"]
        yield Served(made.url, client, version)


def ready(page: Page) -> Locator:
    """Open the category's page; gives the slider, once it knows what there is to choose."""
    page.goto(PAGE)
    slider = page.get_by_label("Good parts that may be rejected")
    expect(slider).to_be_enabled()
    return slider


def save(page: Page, reason: str) -> None:
    """Save the threshold that is chosen."""
    page.locator("#threshold-reason").fill(reason)
    page.get_by_role("button", name="Save", exact=True).click()


def drawable(page: Page, station: str) -> Locator:
    """Choose whose region is drawn; gives the stage, once it shows the picture and what is set there."""
    page.get_by_label("Holds for").select_option(station)
    stage = page.get_by_role("application", name="Picture to draw the region on")
    expect(stage).not_to_have_attribute("aria-busy", "true")
    return stage


def asked(page: Page) -> tuple[str, str]:
    """The time that the address of a report is of."""
    query = parse_qs(urlsplit(page.url).query)
    return query["from"][0], query["to"][0]


def test_a_threshold_is_moved_with_a_reason(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        slider = ready(page)
        save = page.get_by_role("button", name="Save", exact=True)
        expect(page.locator("#threshold-rate")).to_have_text("10% (set)")
        expect(save).to_be_disabled()
        slider.focus()
        page.keyboard.press("End")
        expect(page.locator("#threshold-rate")).to_have_text("20%")
        expect(slider).to_have_attribute(
            "aria-valuetext", re.compile(r"^20%, (not )?certified, \d+ decisions")
        )
        expect(page.locator("#threshold-window")).to_contain_text("inspections: 16 since")
        expect(page.locator('[data-figure="overkill"]')).to_have_text(re.compile(r"^[\d.]+%$"))
        expect(page.locator('[data-note="escape"]')).to_contain_text("between")

        # Without a reason nothing is saved.
        save.click()
        assert served.rates()["target_fpr"] is None
        page.locator("#threshold-reason").fill("Line 3 rejects too little")
        save.click()
        expect(page.locator("#threshold-said")).to_have_text("Saved: 20% of good parts may be rejected.")
        expect(page.locator("#threshold-rate")).to_have_text("20% (set)")
        assert served.rates()["target_fpr"] == 0.2
        [*_, last] = served.client.get("/v1/reports/shift").json()["changes"]
        assert (last["action"], last["reason"]) == ("model.thresholds", "Line 3 rejects too little")
        reset = {"target_fpr": None, "reason": "as before"}
        served.client.patch(f"{HOME}/thresholds", json=reset, headers={"If-Match": "*"})


def test_what_serves_promises_by_the_rate_that_was_saved(browser: Browser, served: Served) -> None:
    as_made(served)
    with opened(browser, served.url) as page:
        slider = ready(page)
        calibrations = page.locator("#calibrations")
        made = page.get_by_role("columnheader", name="Threshold when made")
        expect(made).to_be_visible()  # which stays as it is
        before = calibrations.inner_text()
        slider.focus()
        page.keyboard.press("Home")
        save(page, "As few as can be")
        expect(page.locator("#threshold-said")).to_contain_text("Saved")
        expect(calibrations).to_contain_text("not certified")
        after = calibrations.inner_text()
        assert "not certified" not in before
        page.reload()
        assert calibrations.inner_text() == after

        # Also where somebody else has set another meanwhile.
        ready(page)
        as_made(served)
        slider.focus()
        page.keyboard.press("End")
        save(page, "Mine")
        expect(page.locator("#threshold-error")).to_contain_text("Not saved")
        expect(calibrations).not_to_contain_text("not certified")
    as_made(served)


def test_the_mark_of_the_chosen_rate_hides_no_rate(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        ready(page)
        mark = page.locator("#threshold-chart .chosen").evaluate(
            "(one) => one.getBBox().y + one.getBBox().height"
        )
        rates = page.locator('#threshold-chart text[text-anchor="middle"]').evaluate_all(
            "(all) => all.map((one) => one.getBBox().y)"
        )
        assert rates
        assert mark < min(rates)


def test_somebody_else_was_faster(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        slider = ready(page)
        slider.focus()
        page.keyboard.press("End")
        theirs = {"target_fpr": 0.05, "reason": "Audit of the line"}
        changed = served.client.patch(f"{HOME}/thresholds", json=theirs, headers={"If-Match": "*"})
        assert changed.is_success
        save(page, "Mine")
        wrong = page.locator("#threshold-error")
        expect(wrong).to_contain_text("from 10% to 5%")
        expect(wrong).to_contain_text("Audit of the line")
        assert served.rates()["target_fpr"] == 0.05
        # What was wanted is still chosen, and can be saved now that what is there was seen.
        expect(page.locator("#threshold-rate")).to_have_text("20%")
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.locator("#threshold-said")).to_contain_text("20%")
        assert served.rates()["target_fpr"] == 0.2


def test_a_review_band_is_tried_before_it_is_set(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        ready(page)
        page.get_by_label("Review band").select_option("0.3")
        expect(page.locator("#threshold-save")).to_be_enabled()
        assert served.rates()["review_fpr"] is None
        page.get_by_role("button", name="Back to what is set").click()
        expect(page.locator("#threshold-save")).to_be_disabled()
        page.get_by_label("Review band").select_option("0.3")
        save(page, "A person looks at doubtful parts")
        expect(page.locator("#threshold-said")).to_contain_text("Saved")
        assert served.rates()["review_fpr"] == 0.3


def as_made(served: Served) -> None:
    """Take back what was set."""
    made = {"target_fpr": None, "review_fpr": None, "reason": "as made"}
    assert served.client.patch(f"{HOME}/thresholds", json=made, headers={"If-Match": "*"}).is_success


def test_the_last_choice_counts_whichever_answer_comes_first(browser: Browser, served: Served) -> None:
    as_made(served)
    with opened(browser, served.url) as page:
        ready(page)
        held: list[Route] = []
        page.route("**/outlook?review_fpr=0.3&*", lambda route: held.append(route))
        band = page.get_by_label("Review band")
        band.select_option("0.3")
        until_held(page, held)
        with page.expect_response("**/outlook?review_fpr=0.2&*"):
            band.select_option("0.2")
        answer = held[0].fetch().json()
        for one in answer["positions"]:
            one["changed"] = 999
        held[0].fulfill(json=answer)
        page.wait_for_timeout(500)
        expect(page.locator('[data-figure="changed"]')).not_to_have_text(re.compile("999|…"))

        # What cannot be had is not told by the figures of another choice.
        page.route("**/outlook?review_fpr=0&*", lambda route: route.abort())
        band.select_option("0")
        expect(page.locator("#threshold-error")).to_be_visible()
        expect(page.locator('[data-figure="changed"]')).to_have_text("")
        expect(page.locator("#threshold-promise")).to_have_text("")
        expect(page.locator("#threshold-slider")).to_be_disabled()
        page.get_by_role("button", name="Back to what is set").click()
        expect(page.locator("#threshold-rate")).to_have_text("10% (set)")
        expect(page.locator("#threshold-error")).to_be_hidden()


def test_a_change_that_came_before_another_band_was_tried_is_told(browser: Browser, served: Served) -> None:
    as_made(served)
    with opened(browser, served.url) as page:
        ready(page)
        theirs = {"target_fpr": 0.05, "reason": "Audit of the line"}
        changed = served.client.patch(f"{HOME}/thresholds", json=theirs, headers={"If-Match": "*"})
        assert changed.is_success
        with page.expect_response("**/outlook?review_fpr=0.3&*"):
            page.get_by_label("Review band").select_option("0.3")
        save(page, "Mine")
        expect(page.locator("#threshold-error")).to_contain_text("from 10% to 5%")
        assert served.rates()["review_fpr"] is None
    as_made(served)


def test_the_band_of_the_version_is_tried_as_what_it_is(browser: Browser, served: Served) -> None:
    as_made(served)
    band = {"review_fpr": 0.3, "reason": "A person looks at doubtful parts"}
    assert served.client.patch(f"{HOME}/thresholds", json=band, headers={"If-Match": "*"}).is_success
    with opened(browser, served.url) as page:
        ready(page)
        with page.expect_response("**/outlook?review_fpr=0&*"):  # it was made with none
            page.get_by_label("Review band").select_option("null")
        expect(page.locator("#threshold-save")).to_be_enabled()

        # A version's own band yields to a wider rate; one that is set would be refused.
        page.get_by_label("Review band").select_option("0.3")
        page.locator('#threshold-band option[value="null"]').evaluate("one => (one.dataset.own = '0.05')")
        with page.expect_response("**/outlook?review_fpr=0.05&*"):
            page.get_by_label("Review band").select_option("null")
        expect(page.locator("#threshold-rate")).to_have_text("10% (set)")
        expect(page.locator("#threshold-save")).to_be_enabled()
        expect(page.locator("#threshold-promise")).not_to_contain_text("must be wider")
    as_made(served)


def test_a_conflict_takes_over_what_was_not_touched_here(browser: Browser, served: Served) -> None:
    def colleague(**rates: float | str | None) -> None:
        changed = served.client.patch(f"{HOME}/thresholds", json=rates, headers={"If-Match": "*"})
        assert changed.is_success, changed.text

    as_made(served)
    colleague(target_fpr=0.042, reason="A rate between those of the slider")
    with opened(browser, served.url) as page:
        slider = ready(page)
        rate, band, wrong = (page.locator(f"#threshold-{name}") for name in ("rate", "band", "error"))
        expect(rate).to_have_text("4.2% (set)")
        colleague(target_fpr=0.05, reason="Audit of the line")
        with page.expect_response("**/outlook?review_fpr=0.3&*"):
            band.select_option("0.3")
        expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^4\.2%,"))
        save(page, "Mine")
        expect(wrong).to_contain_text("the rate from 4.2% to 5%. You wanted the review band “up to 30%")
        expect(wrong).to_contain_text("Audit of the line")
        expect(rate).to_have_text("5% (set)")
        expect(band).to_have_value("0.3")

        slider = ready(page)
        slider.focus()
        page.keyboard.press("End")
        colleague(review_fpr=0.3, reason="A person looks at doubtful parts")
        save(page, "Mine")
        expect(wrong).to_contain_text(
            "the review band from “as the version: none” to “up to 30% of good parts”"
        )
        expect(wrong).to_contain_text("You wanted 20%; look again")
        expect(rate).to_have_text("20%")
        expect(band).to_have_value("0.3")
        save(page, "Mine")
        expect(page.locator("#threshold-said")).to_contain_text("20%")
        assert [served.rates()[name] for name in ("target_fpr", "review_fpr")] == [0.2, 0.3]

        as_made(served)
        slider = ready(page)
        slider.focus()
        page.keyboard.press("End")
        assert served.client.post(f"{HOME}/versions/{LATER}:activate").is_success
        save(page, "Mine")
        expect(wrong).to_contain_text(f"changed the version, which is {LATER} now. You wanted 20%")
        expect(wrong).not_to_contain_text("as made")
    assert served.client.post(f"{HOME}:rollback").is_success


def click(stage: Locator, *places: tuple[float, float]) -> None:
    """Click at shares of the stage's width and height."""
    box = stage.bounding_box()
    assert box is not None
    for x, y in places:
        stage.click(position={"x": box["width"] * x, "y": box["height"] * y})


def test_a_region_is_drawn_by_mouse_and_by_key_and_removed(browser: Browser, served: Served) -> None:
    region = f"{HOME}/region?station=line-1"
    with opened(browser, served.url) as page:
        ready(page)
        stage = drawable(page, "line-1")
        expect(page.locator("#region-status")).to_have_text("No region is set here.")
        click(stage, (0.1, 0.1), (0.5, 0.1), (0.5, 0.9), (0.1, 0.9), (0.1, 0.1))
        expect(page.locator("#region-list li")).to_have_count(1)

        # A second one by keys: right and up of the middle, then round and closed.
        stage.focus()
        for key in ("ArrowRight", " ", *["ArrowRight"] * 15, " ", *["ArrowDown"] * 15, " ", "f"):
            page.keyboard.press(key)
        expect(page.locator("#region-list li")).to_have_count(2)
        expect(page.locator("#announce")).to_have_text("Polygon 2 closed")
        page.locator("#region-reason").fill("The conveyor is in the picture")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("Saved. A region is set")
        kept = served.client.get(region).json()
        assert kept["image"] == {"width": 64, "height": 64}
        corners = kept["polygons"][0]
        for corner, wanted in zip(corners, [(6.4, 6.4), (32, 6.4), (32, 57.6), (6.4, 57.6)], strict=True):
            assert corner == pytest.approx(wanted, abs=0.4)
        assert len(kept["polygons"][1]) == 3
        assert 0.35 < kept["share"] < 0.4

        # It is shown again, a corner can be dragged, and it can be taken away.
        ready(page)
        stage = drawable(page, "line-1")
        expect(page.locator("#region-list li")).to_have_count(2)
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.1)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2, steps=5)
        page.mouse.up()
        expect(page.locator("#region-save")).to_be_enabled()
        page.locator("#region-reason").fill("More of the rim")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("Saved.")
        moved = served.client.get(region).json()["polygons"][0][0]
        assert moved == pytest.approx([12.8, 12.8], abs=0.6)
        page.locator("#region-reason").fill("The conveyor was covered")
        page.get_by_role("button", name="Remove region").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(page.locator("#region-status")).to_contain_text("No region is set here.")
        assert served.client.get(region).status_code == 404


def test_a_region_is_drawn_on_a_picture_of_ones_own(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        ready(page)
        page.get_by_label("Holds for").select_option("*")
        page.locator("#region-name").fill("line-9")
        upload = {"name": "part.png", "mimeType": "image/png", "buffer": png(picture(1, defect=True))}
        page.locator("#region-file").set_input_files(upload)  # type: ignore[arg-type]
        page.get_by_role("button", name="Whole picture").click()
        page.locator("#region-reason").fill("To begin with")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("100% of the picture counts")
        kept = served.client.get(f"{HOME}/region?station=line-9").json()
        assert kept["polygons"] == [[[0, 0], [64, 0], [64, 64], [0, 64]]]
        broken = {"name": "text.png", "mimeType": "image/png", "buffer": b"no picture"}
        page.locator("#region-file").set_input_files(broken)  # type: ignore[arg-type]
        expect(page.locator("#region-error")).to_contain_text("text.png cannot be shown")


def test_a_station_without_a_picture_is_not_shown_that_of_another(browser: Browser, served: Served) -> None:
    region = f"{HOME}/region?station=line-7"
    square = {"image": {"width": 64, "height": 64}, "polygons": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}
    assert served.client.put(region, json=square).is_success
    with opened(browser, served.url) as page:
        ready(page)
        stage = drawable(page, "line-1")
        expect(page.locator("#region-status")).not_to_contain_text("no picture")
        drawable(page, "line-7")
        expect(page.locator("#region-status")).to_contain_text("There is no picture of this yet")
        assert stage.locator("canvas").evaluate(
            "canvas => canvas.getContext('2d').getImageData(0, 0, 64, 64).data.every((value) => value === 0)"
        )
        # What was drawn before the station's name was given stays, and it is said on what.
        drawable(page, "*")
        click(stage, (0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.1))
        page.locator("#region-name").fill("line-8")
        page.locator("#region-name").blur()
        expect(page.locator("#region-status")).to_contain_text("still the one shown before")
        expect(page.locator("#region-list li")).to_have_count(1)
    assert served.client.delete(region, headers={"If-Match": "*"}).is_success


def test_a_drawing_is_kept_until_it_is_saved(browser: Browser, served: Served) -> None:
    asks = "() => !dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    with opened(browser, served.url) as page:
        ready(page)
        stage = drawable(page, "line-1")
        assert not page.evaluate(asks)
        click(stage, (0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.1))
        drawable(page, "line-0")
        expect(page.locator("#region-status")).to_contain_text("Your drawing is kept")
        expect(page.locator("#region-list li")).to_have_count(1)
        assert page.evaluate(asks)
        page.locator("#region-reason").fill("Mine")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("Saved.")
        assert not page.evaluate(asks)
        drawable(page, "line-1")
        expect(page.locator("#region-list li")).to_have_count(0)
    region = f"{HOME}/region?station=line-0"
    assert served.client.delete(region, headers={"If-Match": "*"}).is_success


def test_a_drawing_stays_on_a_picture_of_ones_own(browser: Browser, served: Served) -> None:
    """Stretched to its size, as the region in force would be; also what is not closed yet."""
    with opened(browser, served.url) as page:
        ready(page)
        stage = drawable(page, "line-1")
        click(stage, (0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.25))
        click(stage, (0.1, 0.9), (0.5, 0.9))
        large = png(np.zeros((128, 256, 3), np.uint8))
        upload = {"name": "part.png", "mimeType": "image/png", "buffer": large}
        page.locator("#region-file").set_input_files(upload)  # type: ignore[arg-type]
        expect(stage.locator("svg")).to_have_attribute("viewBox", "0 0 256 128")
        expect(page.locator("#region-list li")).to_have_count(1)
        expect(stage.locator("circle")).to_have_count(5)
        assert page.evaluate("() => !dispatchEvent(new Event('beforeunload', { cancelable: true }))")
        page.get_by_role("button", name="Undo corner").click()
        page.get_by_role("button", name="Undo corner").click()
        page.locator("#region-reason").fill("Mine")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("Saved.")
        address = f"{HOME}/region?station=line-1"
        kept = served.client.get(address).json()
        assert kept["image"] == {"width": 256, "height": 128}
        for corner, wanted in zip(kept["polygons"][0], [(64, 32), (192, 32), (192, 96)], strict=True):
            assert corner == pytest.approx(wanted, abs=2)
    assert served.client.delete(address, headers={"If-Match": "*"}).is_success


def test_a_region_of_another_station_needs_its_name(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        ready(page)
        drawable(page, "*")
        page.get_by_role("button", name="Whole picture").click()
        page.locator("#region-reason").fill("Mine")
        name = page.locator("#region-name")
        for missing in ("", "  "):
            name.fill(missing)
            page.get_by_role("button", name="Save region").click()
            expect(name).to_be_focused()
        assert served.client.get(f"{HOME}/region").status_code == 404
        name.fill("line-6")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("Saved. A region is set")
        expect(page.locator('#region-station option[value="line-6"]')).to_have_text("line-6 ●")
    assert served.client.get(f"{HOME}/region").status_code == 404
    region = f"{HOME}/region?station=line-6"
    assert served.client.delete(region, headers={"If-Match": "*"}).is_success


def test_a_double_click_saves_a_region_once(browser: Browser, served: Served) -> None:
    sent: list[str] = []
    with opened(browser, served.url) as page:
        page.on("request", lambda one: sent.append(one.url) if one.method == "PUT" else None)
        ready(page)
        drawable(page, "line-1")
        page.get_by_role("button", name="Whole picture").click()
        page.locator("#region-reason").fill("Mine")
        page.get_by_role("button", name="Save region").dblclick()
        expect(page.locator("#region-status")).to_contain_text("Saved.")
        expect(page.locator("#region-error")).to_be_hidden()
        assert len(sent) == 1
        expect(page.locator("#region-remove")).to_be_enabled()
    region = f"{HOME}/region?station=line-1"
    assert served.client.delete(region, headers={"If-Match": "*"}).is_success


def test_outlook_and_mark_follow_a_region(browser: Browser, served: Served, tiny_images: Images) -> None:
    as_made(served)
    inspect(served.client, tiny_images["good"][0], station="line-5")
    with opened(browser, served.url) as page:
        ready(page).focus()
        page.keyboard.press("End")
        window = page.locator("#threshold-window")
        before = window.inner_text()
        drawable(page, "line-5")
        page.get_by_role("button", name="Whole picture").click()
        page.locator("#region-reason").fill("Mine")
        page.get_by_role("button", name="Save region").click()
        expect(window).not_to_have_text(before)
        expect(page.locator("#threshold-rate")).to_have_text("20%")
        station = page.locator('#region-station option[value="line-5"]')
        expect(station).to_have_text("line-5 ●")
        page.locator("#region-reason").fill("No longer")
        page.get_by_role("button", name="Remove region").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(station).to_have_text("line-5")
    assert served.client.get(f"{HOME}/region?station=line-5").status_code == 404


def test_somebody_else_has_drawn_meanwhile(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        ready(page)
        stage = drawable(page, "line-0")
        expect(page.locator("#region-status")).to_have_text("No region is set here.")
        square = {"image": {"width": 64, "height": 64}, "polygons": [[[0, 0], [64, 0], [64, 64], [0, 64]]]}
        assert served.client.put(f"{HOME}/region?station=line-0", json=square).is_success
        click(stage, (0.1, 0.1), (0.9, 0.1), (0.9, 0.9))
        page.locator("#region-reason").fill("Mine")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-error")).to_contain_text("somebody else has changed this region")
        expect(page.locator("#region-list li")).to_have_count(1)
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("Saved.")
        assert len(served.client.get(f"{HOME}/region?station=line-0").json()["polygons"][0]) == 3


def test_a_version_is_activated_and_rolled_back(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        ready(page)
        row = page.get_by_role("row", name=re.compile(LATER))
        row.get_by_role("button", name="Activate").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(LATER)
        dialog.get_by_role("button", name="Cancel").click()
        assert served.client.get(HOME).json()["active"] == served.version
        row.get_by_role("button", name="Activate").click()
        dialog.get_by_role("button", name="Activate").click()
        expect(row).to_contain_text("serves")
        assert served.client.get(HOME).json()["active"] == LATER
        page.get_by_role("button", name="Back to the version before").click()
        dialog.get_by_role("button", name="Go back").click()
        expect(page.get_by_role("row", name=re.compile(served.version))).to_contain_text("serves")
        assert served.client.get(HOME).json()["active"] == served.version


@pytest.mark.parametrize("width", [390, 800, 1024])
def test_a_version_is_activated_without_scrolling_sideways(
    browser: Browser, served: Served, width: int
) -> None:
    with opened(browser, served.url, viewport={"width": width, "height": 844}, locale="de") as page:
        page.goto(PAGE)
        row = page.get_by_role("row", name=re.compile(LATER))
        box = row.get_by_role("button", name="Einsetzen").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
        assert page.locator(".versions").evaluate("one => one.parentElement.scrollWidth <= one.clientWidth")


def test_going_back_activates_what_was_asked_about(browser: Browser, served: Served) -> None:
    """Also where somebody else has gone back first: the one before is then the version that was left."""
    activate = f"{HOME}/versions/{LATER}:activate"
    assert served.client.post(activate).is_success
    with opened(browser, served.url) as page:
        ready(page)
        page.get_by_role("button", name="Back to the version before").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(served.version)
        assert served.client.post(f"{HOME}:rollback").is_success
        with page.expect_navigation():
            dialog.get_by_role("button", name="Go back").click()
        expect(page.get_by_role("row", name=re.compile(served.version))).to_contain_text("serves")
        assert served.client.get(HOME).json()["active"] == served.version


def test_the_report_of_a_version_runs_no_script(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        page.goto(f"{PAGE}/versions/{LATER}")
        expect(page.locator("svg.loss polyline")).to_have_count(2)
        address = page.get_by_role("link", name="Open the full report").get_attribute("href")
    context = browser.new_context(base_url=served.url)
    page = context.new_page()
    page.goto(address or "")
    expect(page.locator("p")).to_have_text("Trained.")
    expect(page).to_have_title("as made")
    assert page.evaluate("self.origin") == "null"
    context.close()


def test_scripts_say_shares_as_the_server_does(browser: Browser, served: Served) -> None:
    shares = [0, 0.0005, 0.0233, 0.414, 0.75, 0.9542, 0.995, 0.9999, 0.999999, 1]
    with opened(browser, served.url) as page:
        page.goto("/models")
        said = page.evaluate(
            """async (shares) => {
              const one = document.querySelector("script[type=module]");
              const { percent } = await import(new URL("texts.js", one.src));
              return shares.map(percent);
            }""",
            shares,
        )
    assert said == [messages.languages()["en"].percent(share) for share in shares]


def test_the_shift_report_is_printed(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        page.goto("/report")
        expect(page.get_by_role("heading", name="tiny")).to_be_visible()
        kept = served.client.get("/v1/inspections", params={"limit": 100}).json()["inspections"]
        assert len(kept) >= 16
        expect(page.locator(".figures dd").first).to_have_text(str(len(kept)))
        page.locator(".rejects img").first.scroll_into_view_if_needed()
        page.wait_for_load_state("networkidle")
        page.emulate_media(media="print")
        expect(page.locator(".pages")).to_be_hidden()
        expect(page.locator("#shift")).to_be_hidden()
        data = page.pdf(prefer_css_page_size=True)
        assert data.startswith(b"%PDF-")
        sizes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", data)
        assert sizes
        for width, height in sizes:  # A4 in points
            assert (float(width), float(height)) == pytest.approx((595, 842), abs=1.5)


def test_a_category_is_printed_without_what_cannot_be_pressed_on_paper(
    browser: Browser, served: Served
) -> None:
    colour = "(selector) => getComputedStyle(document.querySelector(selector)).color"
    with opened(browser, served.url, color_scheme="light") as page:
        ready(page)
        light = page.evaluate(colour, "main .card a")
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(colour, "main .card a") != light
        page.emulate_media(media="print")
        assert page.evaluate(colour, "main .card a") == light
        assert page.evaluate(colour, ".tag:not(.soft)") == "rgb(255, 255, 255)"
        for button in page.locator("main button, main .button, main form").all():
            expect(button).to_be_hidden()
        # Whose figures and whose region they are stays.
        for choice in ("#threshold-band", "#region-station"):
            expect(page.locator(choice)).to_be_visible()


def test_another_time_is_chosen(browser: Browser, served: Served) -> None:
    with opened(browser, served.url, timezone_id=zone_by_day()) as page:
        page.goto("/report")
        page.get_by_label("Shift").select_option("yesterday")
        page.wait_for_url(re.compile("from="))
        expect(page.get_by_text("Nothing was inspected in this time.")).to_be_visible()
        assert page.locator("#from").input_value().endswith("T00:00")
        page.get_by_label("Shift").select_option("today")
        expect(page.locator("#to")).to_have_value(re.compile("T00:00$"))
        page.locator("#from").fill("2030-01-02T00:00")
        page.locator("#to").fill("2030-01-01T00:00")
        page.get_by_role("button", name="Show").click()
        assert page.locator("#from").evaluate("field => field.validationMessage") != ""
        page.get_by_label("Shift").select_option("yesterday")
        expect(page.locator("#from")).not_to_have_value("2030-01-02T00:00")
        expect(page.get_by_text("Nothing was inspected in this time.")).to_be_visible()


def test_the_hours_of_two_days_name_their_days(browser: Browser, served: Served) -> None:
    now = datetime.now(UTC)
    asked = {"from": (now - timedelta(hours=36)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}
    with opened(browser, served.url, timezone_id="Europe/Berlin") as page:
        page.goto(f"/report?{urlencode(asked)}")
        expect(page.locator("time.hour").first).to_have_text(re.compile(r"^\w+ \d+\n\d\d:00 [AP]M$"))
        hours = page.locator("time.hour").all_inner_texts()
    assert len(hours) > 36
    days = [hour for hour in hours[1:] if "\n" in hour]
    assert all(day.endswith("12:00 AM") for day in days)
    assert len(days) == [hour.split("\n")[-1] for hour in hours[1:]].count("12:00 AM")


def test_days_are_named_as_they_were_counted(browser: Browser, served: Served) -> None:
    """By an address without `tz` those of UTC: midnight there is still the day before in Los Angeles."""
    now = datetime.now(UTC)
    first = now - timedelta(days=3)
    times = {"from": f"{first:%Y-%m-%dT00:00Z}", "to": (now + timedelta(hours=1)).isoformat()}
    with opened(browser, served.url, timezone_id="America/Los_Angeles") as page:
        page.goto(f"/report?{urlencode(times)}")
        expect(page.locator("time.day").first).to_have_text(f"{first:%b} {first.day}")
        expect(page.get_by_text("Days of the time zone UTC")).to_be_visible()


def test_the_last_minute_is_reported(browser: Browser, served: Served) -> None:
    with opened(browser, served.url, alone=True) as page:
        page.goto("/report")
        begin, end = (page.locator(one).get_attribute("data-moment") for one in ("#from", "#to"))
        page.get_by_role("button", name="Show").click()
        page.wait_for_url(re.compile("from="))
        assert asked(page) == (begin, end)

        page.clock.set_fixed_time("2031-03-05T14:00:30Z")
        page.get_by_label("Shift").select_option("last")
        page.wait_for_url(re.compile("2031-03-05"))
        assert asked(page) == ("2031-03-05T06:00:30.000Z", "2031-03-05T14:01:00.000Z")

        # Only a field that is moved says whole minutes.
        page.locator("#from").fill("2031-03-05T05:00")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url(re.compile("from=2031-03-05T05"))
        assert asked(page) == ("2031-03-05T05:00:00.000Z", "2031-03-05T14:01:00.000Z")


@pytest.mark.parametrize(
    ("language", "scheme"),
    [
        ("en", "light"),
        ("de", "dark"),
        pytest.param("en", "dark", marks=pytest.mark.slow),
        pytest.param("de", "light", marks=pytest.mark.slow),
    ],
)
def test_nothing_stands_in_the_way(browser: Browser, served: Served, language: str, scheme: Any) -> None:
    """Of screen readers and keys, on a desktop and on a phone."""
    size: dict[str, Any] = {} if language == "en" else {"viewport": PHONE, "has_touch": True}
    with opened(browser, served.url, color_scheme=scheme, locale=language, **size) as page:
        for path in ("/models", PAGE, f"{PAGE}/versions/{LATER}", "/report"):
            page.goto(path)
            if path == PAGE:
                expect(page.locator("#threshold-slider")).to_be_enabled()
                expect(page.locator("#region-status")).not_to_be_empty()
            assert serious(page) == [], path
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, path
            assert page.locator("html").get_attribute("lang") == language
