"""Helpers for tests of the operator page in a real browser."""

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page, Response, Route, expect

from app.schemas.access import Role
from tests.support.server import Server
from tests.support.waiting import standing_still

# A busy machine takes its time.
TIMEOUT_MS = 60_000
expect.set_options(timeout=TIMEOUT_MS)
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}

# What browsers of March 2022, the oldest that docs/how-to/use-the-page.md promises, do not have.
_MISSING = """
  delete AbortSignal.timeout;
  delete HTMLFormElement.prototype.requestSubmit;
  for (const name of ["findLast", "findLastIndex", "toReversed", "toSorted", "toSpliced", "with"]) {
    delete Array.prototype[name];
  }
"""

# Faults that axe holds for lesser ones: a list that is none, two places of one name.
_ASTRAY = ("aria-allowed-role", "landmark-unique")

_FADED_IN = """() => Promise.all(document.getAnimations()
  .filter((one) => one.effect.getTiming().iterations !== Infinity)
  .map((one) => one.finished.catch(() => null)))"""

_DROP = """([selector, files]) => {
  const carried = new DataTransfer();
  for (const [name, data] of files) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    carried.items.add(new File([bytes], name, { type: "image/png" }));
  }
  for (const kind of ["dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true });
    document.querySelector(selector).dispatchEvent(event);
  }
}"""


@dataclass(frozen=True)
class Site:
    """A server with the model "tiny", and a client that speaks to it.

    Tests share one: what a test counts there it counts of a station, or of a key, of its own.
    """

    server: Server
    client: httpx.Client

    @property
    def url(self) -> str:
        return self.server.url

    def key(self, role: Role, name: str, *categories: str) -> str:
        """A new key, where there is one already: for these categories, or for all."""
        wanted = {"role": role, "name": name, "categories": list(categories) or None}
        made = self.client.post("/v1/keys", json=wanted)
        assert made.status_code == 201, made.text
        text: str = made.json()["key"]
        return text

    def standing_still(self) -> AbstractContextManager[None]:
        """Suspend the server within the block."""
        return standing_still(self.server.pid)


@contextmanager
def site(server: Server, key: str | None = None) -> Iterator[Site]:
    """Start a server and yield a client with this key."""
    with server, server.client() as client:
        if key is not None:
            client.headers["X-API-Key"] = key
        yield Site(server, client)


def zone_by_day() -> str:
    """A time zone where it is day, so that no date changes while a test runs; off UTC by half an hour too."""
    return "Asia/Kolkata" if 1 <= datetime.now(UTC).hour < 13 else "America/St_Johns"


@contextmanager
def opened(browser: Browser, base: str, **options: Any) -> Iterator[Page]:
    """A page that fails the test when a script of it fails, or something that it asks for is missing.

    Its scripts find no function that is younger than the oldest browsers that are promised.

    Args:
        browser: that opens it.
        base: where its server is.
        options: of its profile.
    """
    profile = browser.new_context(**{"base_url": base, "viewport": DESKTOP, "locale": "en-GB", **options})
    profile.add_init_script(_MISSING)
    profile.set_default_timeout(TIMEOUT_MS)
    page = profile.new_page()
    wrong: list[str] = []

    def on_dialog(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    def on_console(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            wrong.append(message.text)

    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", on_dialog)
    page.on("console", on_console)
    try:
        yield page
    finally:
        profile.close()
    assert wrong == []


def drop(page: Page, name: str, data: bytes) -> None:
    """Drop a file onto the page's drop zone."""
    drop_all(page, {name: data})


def drop_all(page: Page, files: Mapping[str, bytes], place: str = "#drop") -> None:
    """Drop files together onto a place of the page."""
    coded = [(name, base64.b64encode(data).decode()) for name, data in files.items()]
    page.evaluate(_DROP, [place, coded])


@contextmanager
def faultless(page: Page) -> Iterator[None]:
    """Fail if a request of the page is refused, or if the page logs an error, within the block."""
    faults: list[str] = []

    def on_response(response: Response) -> None:
        if response.status >= 400:
            faults.append(f"{response.status} {response.url}")

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(message.text)

    page.on("response", on_response)
    page.on("console", on_console)
    yield
    assert faults == []


def tab_to(page: Page, place: Locator) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(100):
        if place.evaluate("(one) => one === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"Tab does not lead to {place}")


def inspect(client: httpx.Client, data: bytes, **texts: str) -> dict[str, Any]:
    """Send an image and return the answer once lists, pages and rates include it."""
    response = client.post("/v1/models/tiny/predict", files={"file": ("part.png", data)}, data=texts)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    client.get(f"/v1/inspections/{answer['inspection_id']}").raise_for_status()
    return answer


def until_held(page: Page, held: Sequence[Route], count: int = 1) -> None:
    """Wait until so many requests of a page are held. It hears of them only while it is asked something."""
    until = time.monotonic() + TIMEOUT_MS / 1000
    while len(held) < count:
        assert time.monotonic() < until, f"{len(held)} of {count} requests came"
        page.wait_for_timeout(20)


def serious(page: Page) -> list[str]:
    """Return the accessibility violations that axe finds, once what fades in has its colours."""
    page.evaluate(_FADED_IN)
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}; {[' '.join(node['html'].split())[:120] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical") or one["id"] in _ASTRAY
    ]


def enter_key(page: Page, key: str) -> None:
    """Enter a key on the login page after its script has loaded."""
    page.get_by_label("Your key").fill(key)
    expect(page.locator("#login button")).to_be_enabled()
    page.keyboard.press("Enter")
