"""The operator page: an operator's work with a real server and browser."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.auth.sessions import COOKIE
from app.schemas.access import Role
from tests.support.server import Server
from tests.system.pages import Site, drop, enter_key, inspect, opened, serious, site, until_held
from tests.system.processes import FlowGauge

Images = dict[str, list[bytes]]
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


def test_journey_from_a_dropped_image_to_a_review(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
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
        assert serious(page) == []

        # It is on the wall, which nobody has touched.
        card = wall.locator(f'[data-id="{address.split("/")[-1]}"]')
        expect(card).to_contain_text("Reject")
        expect(card).to_contain_text(hostile)
        expect(wall.locator(".inspection").first).to_have_attribute("data-id", address.split("/")[-1])
        expect(wall.locator("#last")).to_have_attribute("data-shown", address.split("/")[-1])
        wall.get_by_role("button", name="Sound on rejects").press("Enter")
        wall.get_by_role("button", name="Full screen").press("Enter")
        expect(wall.get_by_role("button", name="Full screen")).to_have_attribute("aria-pressed", "true")
        assert serious(wall) == []
        wall.get_by_role("button", name="Full screen").press("Enter")
        card.locator("a").click()
        expect(wall).to_have_url(re.compile(re.escape(address)))

        # What the rates say comes last: then the page is whole.
        reviewed = wall.locator('[data-rate="reviewed"]')
        expect(reviewed).to_contain_text("inspected")
        before = reviewed.inner_text()

        assert serious(wall) == []

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
        assert said["review"] == {"revision": 1, "verdict": "defect", "kind": None}
        assert said["part_id"] == hostile


@pytest.mark.slow
def test_zoom_by_wheel_drag_and_keys(browser: Browser, served: Site, tiny_images: Images) -> None:
    identifier = inspect(served.client, tiny_images["defect"][0])["inspection_id"]
    with opened(browser, served.url) as page:
        look_at(page, identifier)
        part, good = page.locator(".stack").first, page.locator("#good .stack")

        def shown() -> list[float]:
            text = part.get_attribute("viewBox")
            assert text == good.get_attribute("viewBox")
            return [float(number) for number in (text or "").split()]

        whole = shown()
        box = part.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.wheel(0, -400)
        expect(part).to_have_class(re.compile("zoomed"))
        x, _, width, _ = shown()
        assert width == pytest.approx(whole[2] / math.e)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 - 30, box["y"] + box["height"] / 2)
        page.mouse.up()
        assert x < shown()[0]
        expect(page.locator("#heat")).to_have_attribute("href", re.compile("large-overlay"))
        page.keyboard.press("0")
        assert shown() == whole
        page.keyboard.press("+")
        part.focus()
        before = shown()[0]
        page.keyboard.press("ArrowRight")  # moves the image, and opens no other inspection
        assert shown()[0] > before
        page.get_by_role("button", name="Whole image").click()
        assert shown() == whole
        page.get_by_label("Good image", exact=True).uncheck()
        expect(good).to_be_hidden()
        page.get_by_role("button", name="Full width").click()
        assert serious(page) == []


@pytest.mark.slow
def test_keys_open_neighbours_and_help(browser: Browser, served: Site, tiny_images: Images) -> None:
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


@pytest.mark.slow
def test_next_inspection_waits_for_the_review(browser: Browser, served: Site, tiny_images: Images) -> None:
    older, newer = (inspect(served.client, data)["inspection_id"] for data in tiny_images["good"][:2])
    with opened(browser, served.url) as page:
        look_at(page, older)
        held: list[Route] = []
        page.route("**/reviews", lambda route: held.append(route))
        page.keyboard.press("g")
        page.keyboard.press("ArrowRight")
        until_held(page, held)
        # Who waits is told for what.
        expect(page.locator("#review-said")).to_have_text("Saving: the server has not answered yet.")
        expect(page).to_have_url(re.compile(older))
        held[0].continue_()
        expect(page).to_have_url(re.compile(newer))
        said = served.client.get(f"/v1/inspections/{older}").json()
        assert said["review"] == {"revision": 1, "verdict": "good", "kind": None}

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


@pytest.mark.slow
def test_unsaved_note_is_not_lost(browser: Browser, served: Site, tiny_images: Images) -> None:
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
        expect(note).to_have_accessible_description(re.compile("Good or Defect saves the note"))

        # The way on waits until it is saved, and leads on after that.
        page.locator("#older").click()
        expect(page.locator("#review-error")).to_contain_text("Good or Defect saves the note")
        expect(note).to_be_focused()
        page.get_by_role("button", name="Good").click()
        expect(note).to_have_value("")
        expect(page.locator("#review-error")).to_be_hidden()
        assert not page.evaluate(ASKS)
        page.locator("#older").click()
        expect(page).to_have_url(re.compile(older))
        page.goto(f"/inspections/{newer}")
        expect(page.locator(".reviews .note")).to_have_text("a hair, no scratch")


@pytest.mark.slow
def test_wall_is_filtered_and_paused(browser: Browser, served: Site, tiny_images: Images) -> None:
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
        expect(page.get_by_role("button", name="Resume (1 new)")).to_be_visible()
        expect(page.locator(f'[data-id="{later}"]')).to_have_count(0)
        page.get_by_role("button", name="Resume").click()
        expect(page.locator(".inspection").first).to_have_attribute("data-id", later)

        # After the browser's Back the choice is again that of the list.
        page.go_back()
        expect(page.get_by_label("Station")).to_have_value("")


@pytest.mark.slow
def test_images_wait_for_a_connection_and_for_the_rate_limit(
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

    with opened(browser, served.url) as page:
        page.clock.install()
        page.goto("/inspect")
        drop(page, "notes.txt", b"no picture")
        problems = page.locator("#problems li")
        expect(problems).to_contain_text("notes.txt")
        page.route("**/predict", answer)
        drop(page, "first.png", tiny_images["good"][0])
        progress = page.locator("#progress")
        expect(progress).to_have_text(
            "No connection to the server. 1 waiting; the page tries again by itself."
        )
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


@pytest.mark.slow
def test_wall_catches_up_after_a_restart(browser: Browser, served: Site, tiny_images: Images) -> None:
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


@pytest.mark.slow
def test_login_review_logout_and_revocation(
    browser: Browser, keyed: Site, tiny_images: Images, flowgauge: FlowGauge
) -> None:
    base, operator = keyed.url, keyed.key(Role.OPERATOR, "the operator")
    path = f"/inspections/{inspect(keyed.client, tiny_images['defect'][0])['inspection_id']}"
    with opened(browser, base) as page:
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


@pytest.mark.slow
def test_choices_are_made_by_keyboard(browser: Browser, served: Site) -> None:
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

        # So is a shift, whose times can be read before.
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
