"""A page that is left open: a server that stands still, midnight, and sessions that end meanwhile."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.access import Role
from bench.service.server import Server
from tests.system.pages import (
    TIMEOUT_MS,
    Site,
    drop,
    enter_key,
    eventually_listed,
    inspect,
    look_away,
    opened,
    site,
    until_held,
    zone_by_day,
)

expect.set_options(timeout=TIMEOUT_MS)
Images = dict[str, list[bytes]]
EVENTS = re.compile(r"/v1/events")
DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
LIST = re.compile(r"/v1/inspections\?")


@pytest.fixture(scope="module")
def served(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(Server(tiny_bundle_store, tmp_path_factory.mktemp("served"))) as served:
        yield served


def enter(page: Page, key: str) -> None:
    """Log in on the page for it, and wait for the page that was wanted."""
    enter_key(page, key)
    page.wait_for_url(lambda url: "/login" not in url)


def log_in(other: Page, key: str) -> None:
    """Log in anew in another tab of the same browser."""
    other.context.clear_cookies()
    other.goto("/login")
    enter(other, key)


def test_a_wall_that_is_left_open(browser: Browser, served: Site, tiny_images: Images) -> None:
    data, station = tiny_images["good"][0], "left-open"
    with opened(browser, served.url, alone=True, timezone_id=zone_by_day()) as page:
        page.clock.install()
        page.goto(f"/?station={station}")
        state = page.locator("#state")
        expect(state).to_have_text("Live")

        # Each thing that is heard tells that the server is there.
        for count in (1, 2):
            page.clock.fast_forward(30_000)
            inspect(served.client, data, station=station)
            page.clock.run_for(100)
            expect(page.locator(".inspection")).to_have_count(count)
        expect(state).to_have_text("Live")

        # A server that stands still ends no connection, so nothing tells of it but silence.
        with served.standing_still():
            page.clock.fast_forward(41_000)
            expect(state).to_have_text("Offline")
            expect(page.locator("#offline")).to_be_visible()
        expect(state).to_have_text("Live")
        expect(page.locator("#offline")).to_be_hidden()

        # What waits is counted once, also where it was asked for again, and all of it.
        page.get_by_role("button", name="Pause").click()
        for count in (32, 32, 32, 2):
            files = [("file", (f"{i}.png", data)) for i in range(count)]
            asked = f"/v1/models/tiny/predict:batch?station={station}"
            assert served.client.post(asked, files=files).status_code == 200
        expect(page.get_by_role("button", name="Go on (98 new)")).to_be_visible()
        with served.standing_still():
            page.clock.fast_forward(41_000)
            expect(state).to_have_text("Offline")
        with page.expect_response("**/wall/counts?*"):  # the list was asked for before
            expect(state).to_have_text("Live")
        inspect(served.client, data, station=station)
        expect(page.get_by_role("button", name="Go on (99 new)")).to_be_visible()
        page.get_by_role("button", name="Go on").click()

        time = page.locator(".inspection time").first
        expect(time).to_have_text(re.compile(r"^\d\d:\d\d:\d\d [AP]M$"))
        page.clock.fast_forward("24:00:00")
        expect(time).to_have_text(re.compile(r"^\w+ \d+, 20\d\d, "))


def test_a_wall_is_live_once_it_has_caught_up(browser: Browser, served: Site, tiny_images: Images) -> None:
    streams: list[Route] = []
    lists: list[Route] = []

    def refuse_twice(route: Route) -> None:
        lists.append(route)
        if len(lists) == 1:
            limited = {"type": "rate-limited", "detail": "The limit is 60."}
            route.fulfill(status=429, headers={"Retry-After": "20"}, json=limited)
        elif len(lists) == 2:
            route.abort()
        else:
            route.continue_()

    with opened(browser, served.url, alone=True) as page:
        page.clock.install()
        page.route(EVENTS, lambda route: streams.append(route))
        page.route(LIST, refuse_twice)
        page.goto("/")
        until_held(page, streams)
        missed = inspect(served.client, tiny_images["good"][0])["inspection_id"]
        card, state = page.locator(f'[data-id="{missed}"]'), page.locator("#state")
        with page.expect_event("requestfinished", lambda request: bool(LIST.search(request.url))):
            streams[0].continue_()
        page.clock.run_for(10_000)  # the page's clock goes on by itself, too
        assert len(lists) == 1
        expect(state).to_have_text("Connecting …")
        page.clock.run_for(10_000)
        until_held(page, lists, 2)
        expect(card).to_have_count(0)
        page.clock.run_for(5_000)
        expect(card).to_have_count(1)
        expect(state).to_have_text("Live")

        # In the background it hears nothing, and does not say that it does until it is connected again.
        look_away(page, True)
        missed = inspect(served.client, tiny_images["good"][0])["inspection_id"]
        look_away(page, False)
        expect(state).to_have_text("Connecting …")
        until_held(page, streams, 2)
        expect(state).to_have_text("Connecting …")
        streams[1].continue_()
        expect(state).to_have_text("Live")
        expect(page.locator(f'[data-id="{missed}"]')).to_have_count(1)


def test_a_server_that_is_away_is_told_of_once(browser: Browser, served: Site) -> None:
    tries: list[Route] = []

    def refuse(route: Route) -> None:
        tries.append(route)
        route.abort()

    with opened(browser, served.url) as page:
        page.route(EVENTS, refuse)
        page.goto("/")
        band, state = page.locator("#offline"), page.locator("#state")
        expect(band).to_be_visible()
        page.evaluate("""() => {
          window.written = 0;
          const band = document.getElementById("offline");
          new MutationObserver(() => (window.written += 1)).observe(band, { childList: true });
        }""")
        until_held(page, tries, len(tries) + 2)

        # A cable that is plugged in again is no server yet.
        page.evaluate("dispatchEvent(new Event('offline'))")
        page.evaluate("dispatchEvent(new Event('online'))")
        expect(band).to_be_visible()
        assert page.evaluate("window.written") == 0
        page.unroute(EVENTS)
        expect(state).to_have_text("Live")
        expect(band).to_be_hidden()


def test_an_answer_that_comes_late_does_not_take_back_a_review(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    """Neither on a card that is shown nor on one that the answer brings."""
    streams: list[Route] = []
    lists: list[Route] = []
    with opened(browser, served.url) as page:
        shown = inspect(served.client, tiny_images["good"][0])["inspection_id"]
        page.route(EVENTS, lambda route: streams.append(route))
        page.route(LIST, lambda route: lists.append(route))
        page.goto("/")
        until_held(page, streams)
        missed = inspect(served.client, tiny_images["good"][1])["inspection_id"]
        streams[0].continue_()
        until_held(page, lists)
        late = lists[0].fetch()
        for identifier in (missed, shown):
            said = {"verdict": "defect", "expected_revision": 0}
            assert served.client.post(f"/v1/inspections/{identifier}/reviews", json=said).is_success
        verdict = '[data-id="{}"] [data-field="verdict"]'.format
        expect(page.locator(verdict(shown))).to_have_text("Defect")
        lists[0].fulfill(response=late)
        expect(page.locator("#state")).to_have_text("Live")
        expect(page.locator(verdict(missed))).to_have_text("Defect")
        expect(page.locator(verdict(shown))).to_have_text("Defect")


def test_a_wall_that_is_paused_for_long_counts_so_far(browser: Browser, served: Site) -> None:
    def told(i: int) -> str:
        identifier = f"0193a6b2-{i:04x}-7d4f-8a53-5d1d3b7a8c11"
        event = {"inspection_id": identifier, "created_at": "2026-11-25T01:15:00.123Z", "category": "tiny"}
        event |= {"decision": "PASS"}
        return f"event: inspection\ndata: {json.dumps(event | {'score': 1.0})}\n\n"

    streams: list[Route] = []
    with opened(browser, served.url) as page:
        page.route("**/thumbnail.jpg", lambda route: route.fulfill(content_type="image/svg+xml", body=DOT))
        page.route(EVENTS, lambda route: streams.append(route))
        page.goto("/?station=paused")  # where nothing newer is shown
        page.get_by_role("button", name="Pause").click()
        for number, (count, name) in enumerate(((999, "Go on (999 new)"), (1100, "Go on (999+ new)")), 1):
            until_held(page, streams, number)
            body = "".join(map(told, range(count)))
            streams[-1].fulfill(content_type="text/event-stream", body=body)
            expect(page.get_by_role("button", name=name)).to_be_visible()
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".inspection").first).to_have_attribute("data-id", re.compile("0193a6b2-044b"))


def test_pictures_that_did_not_come_are_asked_for_again(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    """When the wall connects again, which is when its server is there again."""
    asked: list[Route] = []
    streams: list[Route] = []

    def refuse(route: Route) -> None:
        asked.append(route)
        route.abort()

    with opened(browser, served.url, alone=True) as page:
        identifier = inspect(served.client, tiny_images["defect"][3])["inspection_id"]
        thumbnail = f"**/{identifier}/thumbnail.jpg"
        page.clock.install()
        page.route(thumbnail, refuse)
        page.goto("/")
        image = page.locator(f'[data-id="{identifier}"] img')
        for i in range(6):
            until_held(page, asked, i + 1)
            page.clock.run_for(400 * 2**i)
        until_held(page, asked, 7)
        expect(image).to_have_attribute("data-failed", "")
        page.unroute(thumbnail)
        look_away(page, True)

        # Of what retention has left without its picture, a card says so whoever has made it.
        page.route(EVENTS, lambda route: streams.append(route))
        look_away(page, False)
        until_held(page, streams)
        gone = inspect(served.client, tiny_images["good"][0])["inspection_id"]

        def without_pictures(route: Route) -> None:
            answer = route.fetch()
            found = answer.json()
            for one in found["inspections"]:
                one["has_pictures"] = one["inspection_id"] != gone
            route.fulfill(response=answer, json=found)

        page.route(LIST, without_pictures)
        streams[0].continue_()
        loaded = "(image) => image.complete && image.naturalWidth > 0"
        page.wait_for_function(loaded, arg=image.element_handle())
        expect(page.locator(f'[data-id="{gone}"] .picture')).to_have_text("Picture no longer kept")

        # So are those of a report.
        page.route(thumbnail, lambda route: route.continue_() if len(asked) > 7 else refuse(route))
        page.goto("/report")
        until_held(page, asked, 8)
        page.clock.run_for(400)
        page.wait_for_function(
            loaded, arg=page.locator(f'.rejects img[src*="{identifier}"]').element_handle()
        )


def test_a_session_that_ends_costs_no_work(browser: Browser, keyed: Site, tiny_images: Images) -> None:
    key = keyed.key(Role.ADMIN, "the engineer")
    path = f"/inspections/{inspect(keyed.client, tiny_images['good'][0])['inspection_id']}"
    with opened(browser, keyed.url, alone=True) as page:
        page.goto(path)
        enter(page, key)
        expect(page.locator('[data-rate="reviewed"]')).to_contain_text("inspected")

        # Another login, in another tab, has another token.
        other = page.context.new_page()
        log_in(other, key)
        page.keyboard.press("g")
        expect(page.locator("#review-said")).to_have_text("Saved: Good.")

        # A write without a session leaves the page as it is, and goes through after the login.
        page.context.clear_cookies()
        page.locator("summary").click()
        page.get_by_label("Note").fill("seen twice")
        page.get_by_role("button", name="Defect").click()
        link = page.get_by_role("link", name="Log in in another tab")
        expect(link).to_be_visible()
        expect(page.get_by_label("Note")).to_have_value("seen twice")
        with page.expect_popup() as popup:
            link.click()
        enter(popup.value, key)
        page.get_by_role("button", name="Defect").click()
        expect(page.locator("#review-said")).to_have_text("Saved: Defect.")
        expect(link).to_be_hidden()
        assert keyed.client.get(f"/v1{path}").json()["review"] == {"revision": 2, "verdict": "defect"}

        # Pictures that wait are inspected after it.
        page.goto("/inspect")
        page.context.clear_cookies()
        drop(page, "part.png", tiny_images["good"][1])
        expect(page.locator("#progress")).to_contain_text("Waiting for the login: 1")
        log_in(other, key)
        page.evaluate("dispatchEvent(new Event('focus'))")
        expect(page.locator("#result")).to_contain_text("part.png")
        expect(page.locator("#problems")).to_be_empty()

        page.context.set_offline(True)
        page.evaluate("document.getElementById('offline').hidden = true")
        page.get_by_role("button", name="Log out").click()
        expect(page.locator("#offline")).to_have_text("No connection to the server.")


def test_an_answer_that_does_not_come_is_asked_for_again(
    browser: Browser, served: Site, tiny_images: Images
) -> None:
    with opened(browser, served.url, alone=True) as page:
        page.clock.install()
        page.goto("/inspect")
        page.get_by_label("Station").fill("asked-again")
        with served.standing_still():
            drop(page, "part.png", tiny_images["good"][0])
            page.clock.fast_forward(119_000)
            expect(page.locator("#progress")).to_contain_text("part.png")
            page.clock.fast_forward(2_000)
            expect(page.locator("#progress")).to_contain_text("No connection to the server. 1 waiting")
        page.clock.fast_forward(5_000)
        expect(page.locator("#result")).to_contain_text("part.png")
        assert len(eventually_listed(served.client, 1, station="asked-again")) == 1


def test_the_login_of_another_key_costs_no_work(browser: Browser, keyed: Site, tiny_images: Images) -> None:
    mine, theirs = keyed.key(Role.ADMIN, "the early shift"), keyed.key(Role.ADMIN, "the late shift")
    path = f"/inspections/{inspect(keyed.client, tiny_images['good'][0])['inspection_id']}"
    with opened(browser, keyed.url, alone=True) as page:
        page.goto(path)
        enter(page, mine)
        page.locator("summary").click()
        page.get_by_label("Note").fill("seen twice")
        waiting = page.context.new_page()
        waiting.goto("/inspect")
        waiting.get_by_label("Station").fill("handed-over")
        other = page.context.new_page()
        log_in(other, theirs)
        page.get_by_role("button", name="Defect").click()
        band = page.locator("#another-key")
        expect(band).to_contain_text("logged in as another key")
        expect(page.locator("#review-error")).to_have_text(band.inner_text())
        expect(page.get_by_label("Note")).to_have_value("seen twice")
        assert keyed.client.get(f"/v1{path}").json()["review"]["revision"] == 0
        page.get_by_role("button", name="Log out").click()
        expect(page.locator("#offline")).to_be_hidden()
        for name in ("one.png", "two.png"):
            drop(waiting, name, tiny_images["good"][1])
        expect(waiting.locator("#progress")).to_contain_text("Waiting for the login: 2")
        expect(waiting.locator("#another-key")).to_be_visible()
        expect(waiting.locator("#problems")).to_be_empty()

        # With the key of before all of it goes through.
        log_in(other, mine)
        page.get_by_role("button", name="Defect").click()
        expect(page.locator("#review-said")).to_have_text("Saved: Defect.")
        expect(band).to_be_hidden()
        waiting.evaluate("dispatchEvent(new Event('focus'))")
        expect(waiting.locator("#result")).to_contain_text("two.png")
        expect(waiting.locator("#problems")).to_be_empty()
        found = eventually_listed(keyed.client, 2, station="handed-over")
        assert {one["key_id"] for one in found} == {mine.split("_")[1]}


def test_dark_pages_are_printed_in_light_colours(browser: Browser, served: Site) -> None:
    soft = "() => getComputedStyle(document.querySelector('.count.PASS')).backgroundColor"
    with opened(browser, served.url, color_scheme="light") as page:
        page.goto("/")
        light = page.evaluate(soft)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(soft) != light
        page.emulate_media(media="print")
        assert page.evaluate(soft) == light
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        page.emulate_media(media="screen", color_scheme="light")
        page.get_by_role("button", name="Switch between light and dark").click()
        page.emulate_media(media="print")
        assert page.evaluate(soft) == light
