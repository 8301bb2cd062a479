"""A page left open while the server stalls, midnight passes and sessions end."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.schemas.access import Role
from tests.support.server import Server
from tests.system.pages import Site, drop, enter_key, inspect, opened, site, zone_by_day

pytestmark = pytest.mark.slow
Images = dict[str, list[bytes]]


@pytest.fixture(scope="module")
def served(tiny_bundle_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(Server(tiny_bundle_store, tmp_path_factory.mktemp("served"))) as served:
        yield served


def enter(page: Page, key: str) -> None:
    """Log in and wait for the requested page."""
    enter_key(page, key)
    page.wait_for_url(lambda url: "/login" not in url)


def log_in(other: Page, key: str) -> None:
    """Log in again in another tab."""
    other.context.clear_cookies()
    other.goto("/login")
    enter(other, key)


def test_wall_left_open_for_a_day(browser: Browser, served: Site, tiny_images: Images) -> None:
    data, station = tiny_images["good"][0], "left-open"
    with opened(browser, served.url, timezone_id=zone_by_day()) as page:
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

        time = page.locator(".inspection time").first
        expect(time).to_have_text(re.compile(r"^\d\d:\d\d:\d\d [AP]M$"))
        page.clock.fast_forward("24:00:00")
        expect(time).to_have_text(re.compile(r"^\w+ \d+, 20\d\d, "))


def test_ended_session_loses_no_work(browser: Browser, keyed: Site, tiny_images: Images) -> None:
    key = keyed.key(Role.ADMIN, "the engineer")
    path = f"/inspections/{inspect(keyed.client, tiny_images['good'][0])['inspection_id']}"
    with opened(browser, keyed.url) as page:
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
        review = keyed.client.get(f"/v1{path}").json()["review"]
        assert review == {"revision": 2, "verdict": "defect", "kind": None}

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
