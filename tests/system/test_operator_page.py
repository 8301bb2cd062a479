"""The operator's page: a real server, a real browser, and what an operator does with them."""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from app.access import Role
from app.sessions import COOKIE
from bench.service.server import Server
from tests.system.pages import (
    PHONE,
    TIMEOUT_MS,
    Site,
    drop,
    enter_key,
    eventually_listed,
    inspect,
    opened,
    serious,
    site,
    until_held,
)
from tests.system.processes import FlowGauge
from tests.waiting import eventually

expect.set_options(timeout=TIMEOUT_MS)
Images = dict[str, list[bytes]]
BOXES = "(all) => all.map((one) => one.getBoundingClientRect()).map((box) => [box.left, box.right])"
# Whether the browser asks before the page is left.
ASKS = "() => !dispatchEvent(new Event('beforeunload', { cancelable: true }))"


@pytest.fixture(scope="module")
def served(
    tiny_bundle_store: Path, tiny_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A server with a little history."""
    with site(Server(tiny_bundle_store, tmp_path_factory.mktemp("served"))) as served:
        for i, data in enumerate((*tiny_images["good"], *tiny_images["defect"])):
            inspect(served.client, data, part_id=f"P-{i}", station=f"line {i % 2}")
        yield served


def live(page: Page, path: str = "/") -> None:
    """Open the wall, and wait until it is live."""
    page.goto(path)
    expect(page.locator("#state")).to_have_attribute("data-state", "live")


def look_at(page: Page, identifier: str) -> None:
    """Open an inspection, up to the last that its page asks for: keys are then heard."""
    page.goto(f"/inspections/{identifier}")
    expect(page.locator('[data-rate="reviewed"]')).to_contain_text("inspected")


def test_from_a_dropped_picture_to_a_review(browser: Browser, served: Site, tiny_images: Images) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    with opened(browser, served.url) as wall, opened(browser, served.url) as page:
        live(wall)
        page.goto("/inspect")
        page.get_by_label("Part").fill(hostile)
        drop(page, "scratched.png", tiny_images["defect"][3])
        expect(page.locator("#result")).to_contain_text("Reject")
        expect(page.locator("#result")).to_contain_text("good parts in calibration")
        look = page.get_by_role("link", name="Look closer")
        expect(look).to_have_attribute("target", "_blank")  # what is inspected by hand goes on
        address = look.get_attribute("href")
        assert address is not None

        # It is on the wall, which nobody has touched.
        card = wall.locator(f'[data-id="{address.split("/")[-1]}"]')
        expect(card).to_contain_text("Reject")
        expect(card).to_contain_text(hostile)
        expect(wall.locator(".inspection").first).to_have_attribute("data-id", address.split("/")[-1])
        card.locator("a").click()
        expect(wall).to_have_url(re.compile(re.escape(address)))

        # What the rates say comes last: then the page is whole.
        reviewed = wall.locator('[data-rate="reviewed"]')
        expect(reviewed).to_contain_text("inspected")
        before = reviewed.inner_text()

        # The slider shows the picture alone, or the heatmap alone.
        slider, heat = wall.get_by_role("slider", name="Heatmap"), wall.locator("#heat")
        slider.focus()
        wall.keyboard.press("Home")
        expect(heat).to_have_css("opacity", "0")
        wall.keyboard.press("End")
        expect(heat).to_have_css("opacity", "1")

        # Nothing of the rejected was reviewed so far; one key, though the slider has the focus, and the
        # counts know.
        wall.keyboard.press("d")
        expect(wall.locator("#review-said")).to_have_text("Saved: Defect.")
        expect(reviewed).not_to_have_text(before)
        expect(wall.locator('[data-verdict="defect"]')).to_have_attribute("aria-pressed", "true")
        said = served.client.get(f"/v1{address}").json()
        assert said["review"] == {"revision": 1, "verdict": "defect"}
        assert said["part_id"] == hostile


def test_keys_lead_to_neighbours_and_help(browser: Browser, served: Site, tiny_images: Images) -> None:
    older, newer = (inspect(served.client, data)["inspection_id"] for data in tiny_images["good"][:2])
    with opened(browser, served.url) as page:
        look_at(page, newer)
        page.keyboard.press("ArrowLeft")
        expect(page).to_have_url(re.compile(older))
        expect(page.locator('[data-rate="reviewed"]')).to_contain_text("inspected")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("g")  # read in the list of keys, not meant
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        page.locator("summary").click()
        page.get_by_label("Note").fill("good, d")
        assert served.client.get(f"/v1/inspections/{older}").json()["review"]["revision"] == 0
        page.get_by_label("Note").fill("")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowRight")
        expect(page).to_have_url(re.compile(newer))


def test_a_key_pressed_on_the_way_is_not_for_the_part_before(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    older, newer = (inspect(served.client, data)["inspection_id"] for data in tiny_images["good"][:2])
    with opened(browser, served.url) as page:
        look_at(page, newer)
        held: list[Route] = []
        page.route(f"**/inspections/{older}*", lambda route: held.append(route))
        page.keyboard.press("ArrowLeft")
        until_held(page, held)
        page.keyboard.press("d")
        page.wait_for_timeout(300)
        held[0].continue_()
        expect(page).to_have_url(re.compile(older))
        assert served.client.get(f"/v1/inspections/{newer}").json()["review"]["revision"] == 0

        # Back by the browser's own way: the page is whole again.
        expect(page.locator('[data-rate="reviewed"]')).to_contain_text("inspected")
        page.go_back()
        expect(page).to_have_url(re.compile(newer))
        expect(page.locator('[data-rate="reviewed"]')).to_contain_text("inspected")
        page.keyboard.press("g")
        expect(page.locator("#review-said")).to_have_text("Saved: Good.")


def test_the_way_on_waits_for_a_review(browser: Browser, served: Site, tiny_images: Images) -> None:
    older, newer = (inspect(served.client, data)["inspection_id"] for data in tiny_images["good"][:2])
    with opened(browser, served.url) as page:
        look_at(page, older)
        held: list[Route] = []
        page.route("**/reviews", lambda route: held.append(route))
        page.keyboard.press("g")
        page.keyboard.press("ArrowRight")
        until_held(page, held)
        # Who waits is told for what.
        expect(page.locator("#review-said")).to_have_text("Saving: the service has not answered yet.")
        expect(page).to_have_url(re.compile(older))
        held[0].continue_()
        expect(page).to_have_url(re.compile(newer))
        said = served.client.get(f"/v1/inspections/{older}").json()
        assert said["review"] == {"revision": 1, "verdict": "good"}

        # One that is refused is read where it was given.
        expect(page.locator('[data-rate="reviewed"]')).to_contain_text("inspected")
        page.keyboard.press("g")
        page.keyboard.press("ArrowLeft")
        until_held(page, held, 2)
        theirs = {"verdict": "defect", "expected_revision": 0}
        assert served.client.post(f"/v1/inspections/{newer}/reviews", json=theirs).is_success
        held[1].continue_()
        expect(page.get_by_role("alert").filter(has_text="Somebody else")).to_be_visible()
        expect(page).to_have_url(re.compile(newer))


def test_every_link_waits_for_a_review(browser: Browser, served: Site, tiny_images: Images) -> None:
    identifier = inspect(served.client, tiny_images["good"][0])["inspection_id"]
    with opened(browser, served.url) as page:
        look_at(page, identifier)
        held: list[Route] = []
        page.route("**/reviews", lambda route: held.append(route))
        page.keyboard.press("g")
        until_held(page, held)
        page.get_by_role("link", name="Scores", exact=True).click()
        assert page.evaluate(ASKS)
        held[0].fulfill(status=500, json={"type": "internal", "detail": "Ask again."})

        # What has failed is read here, and nothing leads away any more.
        expect(page.locator("#review-error")).to_contain_text("The server failed")
        expect(page).to_have_url(re.compile(identifier))
        assert not page.evaluate(ASKS)
        page.keyboard.press("g")
        until_held(page, held, 2)
        page.get_by_role("link", name="Scores", exact=True).click()
        held[1].continue_()
        expect(page).to_have_url(re.compile("/scores$"))
        said = served.client.get(f"/v1/inspections/{identifier}").json()
        assert said["review"] == {"revision": 1, "verdict": "good"}


def test_a_way_on_that_leads_nowhere_is_not_waited_for(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    older, newer = (inspect(served.client, data)["inspection_id"] for data in tiny_images["good"][:2])

    def revision() -> int:
        found: int = served.client.get(f"/v1/inspections/{newer}").json()["review"]["revision"]
        return found

    with opened(browser, served.url) as page:
        look_at(page, newer)
        held: list[Route] = []
        page.route(f"**/inspections/{older}*", lambda route: held.append(route))
        said, wrong = page.locator("#review-said"), page.locator("#review-error")
        page.keyboard.press("ArrowLeft")
        until_held(page, held)
        page.keyboard.press("d")
        page.keyboard.press("Escape")
        expect(wrong).to_have_text(re.compile("^Not saved: the other inspection is on its way"))
        assert revision() == 0
        page.keyboard.press("d")
        expect(said).to_have_text("Saved: Defect.")
        expect(wrong).to_be_hidden()

        # After some seconds nothing is on its way any more, whatever has become of it.
        page.keyboard.press("ArrowLeft")
        until_held(page, held, 2)

        def saved() -> bool:
            page.keyboard.press("g")
            return revision() >= 2

        eventually(saved)
        held[1].abort("aborted")
        expect(said).to_have_text("Saved: Good.")
        expect(page.locator('[data-verdict="good"]')).to_be_enabled()  # no review is on its way any more

        # A link that is downloaded leads nowhere.
        page.unroute(f"**/inspections/{older}*")
        before = revision()
        with page.expect_download():
            page.locator("#older").click(modifiers=["Alt"])
        page.keyboard.press("d")
        expect(said).to_have_text("Saved: Defect.")
        assert revision() == before + 1


def test_a_review_whose_answer_was_lost_is_known_as_ones_own(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    identifier = inspect(served.client, tiny_images["good"][0])["inspection_id"]
    lost: list[Route] = []
    away: list[Route] = []

    def lose(route: Route) -> None:
        if route.request.method == "GET":
            away.append(route)
            route.abort() if len(lost) == 2 else route.continue_()
        elif len(lost) < 2:
            route.fetch()  # it is saved
            lost.append(route)
            route.abort()
        else:
            route.continue_()

    with opened(browser, served.url) as page:
        look_at(page, identifier)
        page.route("**/reviews", lose)
        page.locator("summary").click()
        page.get_by_label("Note").fill("a hair")
        said, wrong, reviews = (page.locator(one) for one in ("#review-said", "#review-error", ".reviews li"))
        page.get_by_role("button", name="Good").click()
        expect(said).to_have_text("Saved: Good.")
        expect(wrong).to_be_hidden()
        expect(page.get_by_label("Note")).to_have_value("")
        expect(reviews).to_have_count(1)

        # Where nothing can be asked either, it is known as such at the next press, which says otherwise.
        page.get_by_role("button", name="Defect").click()
        expect(wrong).to_have_text("No connection to the server.")
        expect(reviews).to_have_count(1)
        lost.append(lost[0])
        page.get_by_role("button", name="Good").click()
        expect(said).to_have_text("Saved: Good.")
        expect(wrong).to_be_hidden()
        expect(reviews).to_have_text([re.compile("^Good"), re.compile("^Defect"), re.compile("^Good")])
        found = served.client.get(f"/v1/inspections/{identifier}/reviews").json()["reviews"]
        assert [(one["verdict"], one["note"]) for one in found] == [
            ("good", "a hair"),
            ("defect", None),
            ("good", None),
        ]


def test_the_answer_to_an_earlier_question_says_nothing(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    identifier = inspect(served.client, tiny_images["good"][0])["inspection_id"]
    with opened(browser, served.url) as page:
        held: list[Route] = []
        page.route("**/rates", lambda route: held.append(route))
        page.goto(f"/inspections/{identifier}")
        until_held(page, held)
        page.keyboard.press("g")
        until_held(page, held, 2)
        held[1].continue_()
        overkill, reviewed = page.locator('[data-rate="overkill"]'), page.locator('[data-rate="reviewed"]')
        expect(reviewed).to_contain_text("inspected")
        said = overkill.inner_text()
        with page.expect_event("requestfinished", lambda request: request.url.endswith("/rates")):
            held[0].fulfill(status=500, json={"type": "internal", "detail": "Ask again."})
        assert overkill.inner_text() == said


def test_a_picture_that_does_not_come_is_asked_for_again_and_missed_aloud(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    identifier = inspect(served.client, tiny_images["defect"][3])["inspection_id"]
    asked: list[Route] = []

    def refuse(route: Route) -> None:
        asked.append(route)
        route.abort()

    with opened(browser, served.url, alone=True) as page:
        page.clock.install()
        # How often it is asked for before the page's script runs is the browser's own affair.
        there: list[bool] = []
        page.route("**/heatmap.jpg", lambda route: route.continue_() if there else refuse(route))
        missed, slider = page.locator("#picture-error"), page.get_by_role("slider", name="Heatmap")
        look_at(page, identifier)
        until_held(page, asked)
        late = page.locator("#picture-late")
        expect(late).to_have_text("The picture or its heatmap has not come yet.")
        expect(slider).to_be_disabled()
        there.append(True)
        with page.expect_event("requestfinished", lambda request: request.url.endswith("/heatmap.jpg")):
            page.clock.run_for(2_000)
        expect(late).to_be_hidden()
        expect(missed).to_be_hidden()
        expect(slider).to_be_enabled()
        expect(page.locator("#heat")).to_be_visible()

        # Where it does not come at all, no part looks like a good one.
        page.unroute("**/heatmap.jpg")
        page.route("**/heatmap.jpg", refuse)
        look_at(page, identifier)
        while missed.is_hidden():
            page.clock.run_for(1_000)
        expect(missed).to_have_text(re.compile("^The picture or its heatmap did not come"))
        expect(missed).to_have_role("alert")
        expect(late).to_be_hidden()
        expect(page.locator("#heat")).to_be_hidden()  # nor has it the browser's own sign, in colours
        expect(slider).to_be_disabled()
        before = slider.input_value()
        page.keyboard.press("h")
        expect(slider).to_have_value(before)


def test_rates_are_known_once_every_decision_was_reviewed(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    ids: dict[str, str] = {}
    for data in (*tiny_images["good"], *tiny_images["defect"]):
        answer = inspect(served.client, data)
        ids[answer["decision"]] = answer["inspection_id"]
    assert set(ids) >= {"PASS", "REJECT"}
    with opened(browser, served.url) as page:
        for decision, key in (("PASS", "g"), ("REVIEW", "g"), ("REJECT", "d")):
            if decision in ids:
                look_at(page, ids[decision])
                page.keyboard.press(key)
                expect(page.locator("#review-said")).to_contain_text("Saved")
        # The last of them filled the gap, and the page tells it without being loaded again.
        expect(page.locator('[data-rate="escape"]')).to_contain_text("between")


def test_a_note_that_comes_after_the_verdict_is_not_lost(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    older, newer = (inspect(served.client, data)["inspection_id"] for data in tiny_images["good"][:2])
    with opened(browser, served.url) as page:
        look_at(page, newer)
        page.keyboard.press("g")
        expect(page.locator("#review-said")).to_have_text("Saved: Good.")
        page.locator("summary").click()
        note = page.get_by_label("Note")
        assert not page.evaluate(ASKS)
        note.fill("a hair, no scratch")
        assert page.evaluate(ASKS)
        expect(note).to_have_accessible_description(re.compile("next press on Good or Defect saves"))

        # The way on waits until it is saved, and leads on after that.
        page.locator("#older").click()
        expect(page.locator("#review-error")).to_contain_text("next press on Good or Defect saves")
        expect(note).to_be_focused()
        page.get_by_role("button", name="Good").click()
        expect(note).to_have_value("")
        expect(page.locator("#review-error")).to_be_hidden()
        assert not page.evaluate(ASKS)
        page.locator("#older").click()
        expect(page).to_have_url(re.compile(older))
        page.goto(f"/inspections/{newer}")
        expect(page.locator(".reviews .note")).to_have_text("a hair, no scratch")


def test_a_review_that_was_saved_is_in_the_list_at_once(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    identifier = inspect(served.client, tiny_images["good"][0])["inspection_id"]
    hostile = "<img src=x onerror=alert(1)>"
    with opened(browser, served.url) as page:
        look_at(page, identifier)
        reviews = page.locator(".reviews li")
        expect(page.get_by_role("heading", name="Reviews")).to_be_hidden()
        page.keyboard.press("g")
        expect(reviews).to_have_text([re.compile(r"^Good .*\d\d:\d\d:\d\d")])
        expect(page.get_by_role("heading", name="Reviews")).to_be_visible()
        page.locator("summary").click()
        page.get_by_label("Note").fill(f"{hostile}\na hair")
        page.get_by_label("Your name").fill("Ada")
        page.get_by_role("button", name="Defect").click()
        expect(reviews).to_have_count(2)
        expect(reviews.nth(1)).to_contain_text("· Ada")
        expect(page.locator(".reviews .note")).to_have_text(f"{hostile}\na hair")
        # As the server tells it.
        shown = [re.sub(r"\s+", " ", text) for text in reviews.all_inner_texts()]
        page.reload()
        assert [re.sub(r"\s+", " ", text) for text in reviews.all_inner_texts()] == shown

        # One that is refused is not in it, and the one that it did not know of is.
        theirs = {"verdict": "good", "expected_revision": 2}
        assert served.client.post(f"/v1/inspections/{identifier}/reviews", json=theirs).is_success
        page.get_by_role("button", name="Defect").click()
        expect(page.get_by_role("alert").filter(has_text="Somebody else")).to_be_visible()
        expect(reviews).to_have_count(3)
        expect(reviews.nth(2)).to_contain_text("Good")


def test_two_people_review_at_once(browser: Browser, served: Site, tiny_images: Images) -> None:
    path = f"/inspections/{inspect(served.client, tiny_images['good'][2])['inspection_id']}"
    with opened(browser, served.url) as first, opened(browser, served.url) as second:
        for page in (first, second):
            page.goto(path)
            expect(page.locator('[data-rate="reviewed"]')).to_contain_text("inspected")
        first.get_by_role("button", name="Good").click()
        expect(first.locator("#review-said")).to_have_text("Saved: Good.")
        second.get_by_role("button", name="Defect").click()
        expect(second.get_by_role("alert").filter(has_text="Somebody else")).to_be_visible()
        assert served.client.get(f"/v1{path}").json()["review"] == {"revision": 1, "verdict": "good"}
        second.get_by_role("button", name="Defect").click()  # having seen it
        expect(second.locator("#review-said")).to_have_text("Saved: Defect.")
        assert served.client.get(f"/v1{path}").json()["review"] == {"revision": 2, "verdict": "defect"}


def test_the_wall_shows_what_was_chosen_and_waits_when_told_to(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    data = tiny_images["good"][0]
    with opened(browser, served.url) as page:
        live(page)
        page.get_by_label("Station").select_option("line 1")
        expect(page).to_have_url(re.compile(r"\?station=line\+1$"))
        expect(page.locator("#state")).to_have_attribute("data-state", "live")
        other = inspect(served.client, data, station="line 0")["inspection_id"]
        mine = inspect(served.client, data, station="line 1")["inspection_id"]
        expect(page.locator(".inspection").first).to_have_attribute("data-id", mine)
        expect(page.locator(f'[data-id="{other}"]')).to_have_count(0)

        page.get_by_role("button", name="Pause").click()
        later = inspect(served.client, data, station="line 1")["inspection_id"]
        expect(page.get_by_role("button", name="Go on (1 new)")).to_be_visible()
        expect(page.locator(f'[data-id="{later}"]')).to_have_count(0)
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".inspection").first).to_have_attribute("data-id", later)

        # After the browser's Back the choice is again that of the list.
        page.go_back()
        expect(page.get_by_label("Station")).to_have_value("")


def test_what_cannot_be_inspected_is_told_and_the_rest_goes_on(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    with opened(browser, served.url) as page:
        page.goto("/inspect")
        notes: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
        part: FilePayload = {"name": "part.png", "mimeType": "image/png", "buffer": tiny_images["good"][0]}
        page.set_input_files("#files", [notes, part])
        expect(page.locator("#problems li")).to_contain_text("notes.txt")
        expect(page.locator("#result")).to_contain_text("good parts in calibration")


def test_a_file_that_waits_keeps_what_the_form_said(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    with opened(browser, served.url) as page:
        page.goto("/inspect")
        held: list[Route] = []
        page.route("**/predict", lambda route: route.continue_() if held else held.append(route))
        page.get_by_label("Part").fill("waits-1")
        page.get_by_label("Station").fill("waiting")
        drop(page, "first.png", tiny_images["good"][0])
        drop(page, "second.png", tiny_images["good"][1])
        page.get_by_label("Part").fill("later")
        page.get_by_label("Station").fill("elsewhere")
        assert page.evaluate(ASKS)
        until_held(page, held)
        held[0].continue_()
        expect(page.locator("#inspections .inspection")).to_have_count(1)
        expect(page.locator("#progress")).to_be_empty()
        assert not page.evaluate(ASKS)
        found = eventually_listed(served.client, 2, station="waiting")
        assert [one["part_id"] for one in found] == ["waits-1", "waits-1"]


def test_pictures_wait_for_a_connection_and_for_the_keys_limit(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    keys: list[str | None] = []

    def answer(route: Route) -> None:
        keys.append(route.request.headers.get("idempotency-key"))
        if len(keys) == 1:
            route.abort()
        elif len(keys) == 2:
            limited = {"type": "rate-limited", "detail": "The limit is 60."}
            route.fulfill(status=429, headers={"Retry-After": "60"}, json=limited)
        else:
            route.continue_()

    with opened(browser, served.url, alone=True) as page:
        page.clock.install()
        page.goto("/inspect")
        drop(page, "notes.txt", b"no picture")
        problems = page.locator("#problems li")
        expect(problems).to_contain_text("notes.txt")
        page.route("**/predict", answer)
        drop(page, "first.png", tiny_images["good"][0])
        progress = page.locator("#progress")
        expect(progress).to_have_text("No connection to the server. 1 waiting; this goes on by itself.")
        page.evaluate("dispatchEvent(new Event('online'))")
        expect(progress).to_contain_text("Too many requests")
        page.clock.fast_forward(59_000)
        expect(progress).to_contain_text("Too many requests")
        page.clock.fast_forward(1_000)
        expect(page.locator("#result")).to_contain_text("first.png")
        drop(page, "second.png", tiny_images["good"][1])
        expect(page.locator("#result")).to_contain_text("second.png")
        expect(page.locator("#inspections .inspection")).to_have_count(1)
        assert keys[0]
        assert keys[0] == keys[1] == keys[2] != keys[3]

        # What is done does not hide what is not: its name stands there until it was read.
        expect(problems).to_have_count(1)
        expect(problems).to_contain_text("notes.txt")
        page.get_by_role("button", name="Clear this list").click()
        expect(problems).to_have_count(0)
        expect(page.get_by_role("button", name="Clear this list")).to_be_hidden()


def test_a_picture_that_comes_too_late_holds_up_no_other(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    """Nor is one lost to a proxy whose server is away for a moment."""
    asked: list[str | None] = []
    problem = {"type": "upload-stalled", "detail": "Send it again."}
    page_of_proxy: dict[str, Any] = {
        "headers": {"Retry-After": "600", "Content-Type": "text/html"},
        "body": "<h1>Oh</h1>",
    }

    def answer(route: Route) -> None:
        key = route.request.headers.get("idempotency-key")
        asked.append(key)
        count = asked.count(key)
        if key == asked[0] and count <= 2:
            route.fulfill(status=504, **page_of_proxy)
        elif key == asked[0] and count == 3:
            route.fulfill(status=408, headers={"Retry-After": "600"}, json=problem)
        elif len(asked) == 3:
            route.fulfill(status=502, **page_of_proxy)
        else:
            route.continue_()

    with opened(browser, served.url, alone=True) as page:
        page.clock.install()
        page.route("**/predict", answer)
        page.goto("/inspect")
        progress, result = page.locator("#progress"), page.locator("#result")
        names, data = ("late.png", "second.png", "third.png"), tiny_images["good"][0]
        page.set_input_files(
            "#files", [FilePayload(name=n, mimeType="image/png", buffer=data) for n in names]
        )
        for count, status in enumerate((504, 504, 502), 1):
            while len(asked) < count:
                page.wait_for_timeout(20)
            expect(progress).to_have_text(
                f"The server did not answer as expected ({status}). 3 waiting; this goes on by itself."
            )
            page.clock.fast_forward(600_000)
        expect(progress).to_contain_text("It did not arrive in time")
        expect(result).to_contain_text("third.png")
        page.clock.fast_forward(600_000)
        expect(result).to_contain_text("late.png")
        late, second, third = dict.fromkeys(asked)
        assert asked == [late, late, second, second, third, late, late]
        expect(page.locator("#problems")).to_be_empty()


def test_a_file_that_is_gone_holds_up_no_other(
    browser: Browser, served: Site, tiny_images: Images, tmp_path: Path
) -> None:
    paths = [tmp_path / "first.png", tmp_path / "gone.png", tmp_path / "last.png"]
    for path in paths:
        path.write_bytes(tiny_images["good"][0])
    with opened(browser, served.url) as page:
        page.goto("/inspect")
        held: list[Route] = []
        page.route("**/predict", lambda route: route.continue_() if held else held.append(route))
        page.set_input_files("#files", paths)
        until_held(page, held)
        paths[1].unlink()
        held[0].continue_()
        expect(page.locator("#result")).to_contain_text("last.png")
        expect(page.locator("#problems li")).to_have_text(["gone.png: The file can no longer be read."])


def test_an_earlier_card_says_when_its_picture_was_inspected(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    with opened(browser, served.url) as page:
        page.goto("/inspect")
        for name in ("first.png", "second.png"):
            drop(page, name, tiny_images["good"][0])
            expect(page.locator("#result")).to_contain_text(name)
        card = page.locator("#inspections .inspection")
        shown = card.locator("time").get_attribute("datetime")
        answer = served.client.get(f"/v1/inspections/{card.get_attribute('data-id')}").json()
    assert datetime.fromisoformat(shown or "") == datetime.fromisoformat(answer["created"])


def test_no_decision_stands_over_the_picture_before(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    with opened(browser, served.url) as page:
        page.goto("/inspect")
        drop(page, "fine.png", tiny_images["good"][0])
        picture = page.locator('#result [data-field="picture"]')
        width = "image => image.naturalWidth"
        expect(page.locator("#result")).to_contain_text("fine.png")
        while not picture.evaluate(width):
            page.wait_for_timeout(20)
        held: list[Route] = []
        page.route("**/overlay.jpg", lambda route: held.append(route))
        drop(page, "scratched.png", tiny_images["defect"][3])
        expect(page.locator("#result")).to_contain_text("Reject")
        expect(page.locator("#result")).to_contain_text("scratched.png")
        until_held(page, held)
        assert picture.evaluate(width) == 0
        held[0].abort()  # it is asked for again
        until_held(page, held, 2)
        held[1].continue_()
        while not picture.evaluate(width):
            page.wait_for_timeout(20)


def test_a_review_that_comes_while_the_wall_waits_is_shown_after(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    with opened(browser, served.url) as page:
        live(page)
        page.get_by_role("button", name="Pause").click()
        later = inspect(served.client, tiny_images["good"][0])["inspection_id"]
        expect(page.get_by_role("button", name="Go on (1 new)")).to_be_visible()
        said = {"verdict": "defect", "expected_revision": 0}
        assert served.client.post(f"/v1/inspections/{later}/reviews", json=said).is_success
        page.wait_for_timeout(500)  # until it has come: nothing on the page tells
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(f'[data-id="{later}"] [data-field="verdict"]')).to_have_text("Defect")


def test_the_wall_survives_a_restart_without_a_gap(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    data, server = tiny_images["good"][0], served.server
    with opened(browser, served.url) as page:
        live(page, "/?station=restarted")
        inspect(served.client, data, station="restarted")
        expect(page.locator(".inspection")).to_have_count(1)
        server.stop()
        try:
            expect(page.locator("#offline")).to_be_visible()
            expect(page.locator("#state")).to_have_text("Offline")
        finally:
            server.start()
        missed = [inspect(served.client, data, station="restarted")["inspection_id"] for _ in range(3)]
        expect(page.locator("#state")).to_have_text("Live")
        expect(page.locator("#offline")).to_be_hidden()
        for identifier in missed:
            expect(page.locator(f'[data-id="{identifier}"]')).to_have_count(1)
        expect(page.locator(".inspection")).to_have_count(4)
        expect(page.locator("#counts [data-count]").first).not_to_have_text("0")


def test_a_key_is_exchanged_and_writes_carry_the_token(
    browser: Browser, keyed: Site, tiny_images: Images, flowgauge: FlowGauge
) -> None:
    base, operator = keyed.url, keyed.key(Role.OPERATOR, "the operator")
    path = f"/inspections/{inspect(keyed.client, tiny_images['defect'][0])['inspection_id']}"
    with opened(browser, base, alone=True) as page:
        held: list[Route] = []
        page.route(re.compile(r"login\.js"), lambda route: held.append(route), times=1)
        page.goto(path, wait_until="commit")
        expect(page).to_have_url(re.compile("/login"))
        # Until the page can take a key, a form that is sent would show what the service says of forms.
        until_held(page, held)
        page.get_by_label("Your key").fill(operator)
        page.keyboard.press("Enter")
        expect(page.locator("#login button")).to_be_disabled()
        held[0].continue_()
        enter_key(page, operator[:-1] + "!")
        expect(page.locator("#login-error")).to_be_visible()
        enter_key(page, operator)
        expect(page).to_have_url(f"{base}{path}")
        expect(page.locator('[data-rate="reviewed"]')).to_contain_text("inspected")
        [cookie] = [one for one in page.context.cookies() if one.get("name") == COOKIE]
        assert cookie.get("httpOnly")
        page.keyboard.press("g")
        expect(page.locator("#review-said")).to_have_text("Saved: Good.")
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(f"{base}/login")
        page.goto(path)
        expect(page).to_have_url(re.compile("/login"))

        # A wall whose session ends is led to the login, not left to believe that the server is away.
        enter_key(page, operator)
        expect(page).to_have_url(f"{base}{path}")
        live(page)
        flowgauge.run("keys", "revoke", operator.split("_")[1], "--history", keyed.server.history)
        expect(page).to_have_url(re.compile("/login"))


def test_pictures_that_a_browser_keeps_are_for_the_session_that_fetched_them(
    browser: Browser, keyed: Site, tiny_images: Images
) -> None:
    """Neither for who comes after a logout nor for the next key; the same session need not ask again."""
    base, mine = keyed.url, keyed.key(Role.ADMIN, "mine")
    other = keyed.key(Role.VIEWER, "of another category", "other")
    path = f"/inspections/{inspect(keyed.client, tiny_images['defect'][0])['inspection_id']}"
    pictures = [f"{path}/{name}.jpg" for name in ("picture", "overlay")] + [f"/v1{path}/overlay.png"]
    status = "(path) => fetch(path).then((answer) => answer.blob().then(() => answer.status))"
    kept = "(url) => performance.getEntriesByName(url).some((one) => one.transferSize === 0)"
    with opened(browser, base, alone=True) as page:

        def statuses() -> list[int]:
            return [page.evaluate(status, picture) for picture in pictures]

        page.goto(path)
        enter_key(page, mine)
        expect(page).to_have_url(f"{base}{path}")
        assert statuses() == [200, 200, 200]
        assert statuses() == [200, 200, 200]
        for picture in pictures:
            page.wait_for_function(kept, arg=base + picture)
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(f"{base}/login")
        assert statuses() == [401, 401, 401]
        page.goto(pictures[0])
        expect(page).to_have_url(re.compile("/login"))
        page.goto("/login")
        enter_key(page, other)
        expect(page.locator("#leave")).to_be_visible()
        assert set(statuses()) <= {403, 404}


@pytest.mark.parametrize("language", ["en", "de"])
def test_verdicts_stay_in_their_card(browser: Browser, served: Site, language: str) -> None:
    kept = served.client.get("/v1/inspections").json()["inspections"]
    with opened(browser, served.url, locale=language) as page:
        page.goto(f"/inspections/{kept[0]['inspection_id']}")
        for width in (320, 340, 360, 390, 960, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            outer = page.locator(".card", has=page.locator(".verdicts")).bounding_box()
            assert outer is not None
            for button in page.locator(".verdicts button").all():
                box = button.bounding_box()
                assert box is not None
                assert box["x"] >= outer["x"], width
                assert box["x"] + box["width"] <= outer["x"] + outer["width"], width
                assert not button.evaluate("(one) => one.scrollWidth > one.clientWidth"), width


def test_the_frame_of_an_admin_fits_every_screen(browser: Browser, keyed: Site, tiny_images: Images) -> None:
    """Who may see all pages, and can log out, has the widest header."""
    admin = keyed.key(Role.ADMIN, "the admin")
    inspection = f"/inspections/{inspect(keyed.client, tiny_images['good'][0])['inspection_id']}"
    for language in ("en", "de"):
        with opened(browser, keyed.url, locale=language) as page:
            page.goto("/login")
            page.locator("#key").fill(admin)
            # The ring of the focus, five pixels around the field, covers no words.
            label, ring, hint = (
                page.locator(one).bounding_box() for one in ("[for=key]", "#key", "#login-help")
            )
            assert label is not None
            assert ring is not None
            assert hint is not None
            assert label["y"] + label["height"] <= ring["y"] - 5
            assert ring["y"] + ring["height"] + 5 <= hint["y"]
            page.keyboard.press("Enter")
            expect(page.locator("#leave")).to_be_visible()
            for path in ("/", inspection, "/inspect", "/scores", "/models", "/models/tiny", "/report"):
                page.goto(path)
                for width in (320, 340, 360, 390, 768, 780, 800, 834, 900, 1024):
                    page.set_viewport_size({"width": width, "height": 800})
                    wide = page.evaluate(
                        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                    )
                    assert wide <= 0, (language, path, width)
                    tools = page.locator(".tools > *").evaluate_all(BOXES)
                    assert tools
                    for left, right in tools:
                        assert left >= 0, (language, path, width)
                        assert right <= width, (language, path, width)


@pytest.mark.parametrize("width", [360, 1280])
def test_long_names_push_nothing_sideways(
    browser: Browser, served: Site, tiny_images: Images, width: int
) -> None:
    long = "W" * 200
    identifier = inspect(served.client, tiny_images["defect"][0], part_id=long, station=long)["inspection_id"]
    said = {"verdict": "good", "expected_revision": 0, "reviewer": long}
    assert served.client.post(f"/v1/inspections/{identifier}/reviews", json=said).is_success
    inspection = f"/inspections/{identifier}"
    with opened(browser, served.url, viewport={"width": width, "height": 740}) as page:
        for path in ("/", inspection, "/inspect", "/scores", "/models/tiny", f"/report?station={long}"):
            page.goto(path)
            page.wait_for_load_state("load")
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, path


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("desktop", "light"),
        ("phone", "dark"),
        pytest.param("desktop", "dark", marks=pytest.mark.slow),
        pytest.param("phone", "light", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", ["wall", "inspection", "inspect", "scores", "login", "error"])
def test_nobody_is_shut_out(
    browser: Browser, served: Site, tiny_images: Images, name: str, scheme: str, size: str
) -> None:
    answer = inspect(served.client, tiny_images["defect"][0], part_id="P-7", station="line 1")
    path = {
        "wall": "/",
        "inspection": f"/inspections/{answer['inspection_id']}",
        "error": "/inspections/none",
    }
    options: dict[str, Any] = (
        {"viewport": PHONE, "is_mobile": True, "has_touch": True} if size == "phone" else {}
    )
    with opened(browser, served.url, color_scheme=scheme, reduced_motion="reduce", **options) as page:
        page.goto(path.get(name, f"/{name}"))
        if name == "wall":
            expect(page.locator("#state")).to_have_attribute("data-state", "live")
        if name == "inspection":
            expect(page.locator('[data-rate="reviewed"]')).to_contain_text("inspected")
        if name == "inspect":
            drop(page, "part.png", tiny_images["defect"][0])
            expect(page.locator("#result")).to_be_visible()
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_arrow_keys_pass_over_choices_and_enter_makes_one(browser: Browser, served: Site) -> None:
    with opened(browser, served.url) as page:
        page.goto("/scores")
        station, show = page.get_by_label("Station"), page.locator("#filter button")
        expect(show).to_be_hidden()
        page.evaluate("window.here = true")
        station.focus()
        while station.input_value() != "line 1":  # the other tests' stations come before it
            page.keyboard.press("ArrowDown")
        expect(show).to_be_visible()
        expect(station).to_be_focused()
        assert page.evaluate("window.here")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"station=line\+1"))
        expect(station).to_be_focused()
        page.keyboard.press("ArrowUp")
        show.click()
        expect(page).to_have_url(re.compile(r"station=line\+0"))
        expect(station).to_be_focused()

        # So is a shift, whose times can be read before, and the language.
        page.goto("/report")
        shift, begin = page.get_by_label("Shift"), page.locator("#from")
        before = begin.input_value()
        shift.focus()
        page.keyboard.press("End")
        expect(shift).to_have_value("yesterday")
        expect(begin).not_to_have_value(before)
        expect(page).to_have_url(re.compile("/report$"))
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("from="))
        expect(shift).to_be_focused()
        language = page.locator("#language")
        language.focus()
        page.keyboard.press("Home")
        expect(language).to_have_value("de")
        expect(page.locator("#speak")).to_be_visible()
        expect(page.locator("html")).to_have_attribute("lang", "en")
        page.locator("#speak").click()
        expect(page.locator("html")).to_have_attribute("lang", "de")
        expect(language).to_be_focused()


def test_the_switches_of_language_and_colours_are_remembered(browser: Browser, served: Site) -> None:
    with opened(browser, served.url, color_scheme="light") as page:
        page.goto("/scores")
        page.get_by_label("Language").select_option("de")
        expect(page.get_by_role("heading", level=1)).to_have_text("Werte im Verlauf")
        page.get_by_role("button", name="Zwischen hell und dunkel").click()
        page.goto("/")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        expect(page.locator("html")).to_have_attribute("lang", "de")
