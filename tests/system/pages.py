"""The operator's page in a real browser: what its tests share."""

import base64
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Route, expect

from tests.system.processes import FlowGauge
from tests.waiting import eventually

# A busy machine takes its time.
TIMEOUT_MS = 60_000
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}

# What browsers of March 2022, the oldest that docs/page.md promises, do not have.
_MISSING = """
  delete AbortSignal.timeout;
  delete HTMLFormElement.prototype.requestSubmit;
  for (const name of ["findLast", "findLastIndex", "toReversed", "toSorted", "toSpliced", "with"]) {
    delete Array.prototype[name];
  }
"""

# Faults that axe holds for lesser ones: a list that is none, two places of one name.
_ASTRAY = ("aria-allowed-role", "landmark-unique")

_DROP = """([selector, name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, { type: "image/png" }));
  for (const kind of ["dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true });
    document.querySelector(selector).dispatchEvent(event);
  }
}"""


@contextmanager
def serving(flowgauge: FlowGauge, *options: object) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """A server on a free port, ready, and a client that speaks to it.

    Its log goes to a file: a browser makes it long, and a pipe that nobody reads would be full and the server
    stand still.
    """
    path = flowgauge.cwd / "server.log"
    with path.open("w") as log:
        server = flowgauge.start("serve", "--port", "0", "--device", "cpu", *map(str, options), log=log)
    try:
        while (found := re.search(r"(http://\S+)/docs[\s\S]*Ctrl-C", path.read_text())) is None:
            assert server.poll() is None, path.read_text()
            time.sleep(0.1)
        with httpx.Client(base_url=found[1], timeout=120, trust_env=False) as client:
            while client.get("/health/ready").status_code != 200:
                assert server.poll() is None, path.read_text()
                time.sleep(0.1)
            yield server, client
    finally:
        server.kill()
        server.wait()


@contextmanager
def opened(browser: Browser, base: str, **options: Any) -> Iterator[Page]:
    """A page that fails the test when a script of it fails, or something that it asks for is missing.

    Its scripts find no function that is younger than the oldest browsers that are promised.
    """
    context = browser.new_context(base_url=base, **{"viewport": DESKTOP, "locale": "en-GB", **options})
    context.add_init_script(_MISSING)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
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
    yield page
    context.close()
    assert wrong == []


def drop(page: Page, name: str, data: bytes) -> None:
    """Let a file fall onto the page's field for it."""
    page.evaluate(_DROP, ["#drop", name, base64.b64encode(data).decode()])


def inspect(client: httpx.Client, data: bytes, **texts: str) -> dict[str, Any]:
    """What the server says of a picture, once it is filed: lists, pages and rates have it then."""
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


def look_away(page: Page, away: bool) -> None:
    """Bring another tab of the browser to the front, or this one again, as far as the page can tell."""
    page.evaluate(
        """(away) => {
          Object.defineProperty(document, "hidden", { value: away, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        away,
    )


def eventually_listed(client: httpx.Client, count: int, **query: str) -> list[dict[str, Any]]:
    """The inspections of a list, when it has so many: a browser's are filed after they were answered."""

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.get("/v1/inspections", params=query).json()["inspections"]
        return found

    eventually(lambda: len(listed()) == count)
    return listed()


def serious(page: Page) -> list[str]:
    """Where somebody who does not see, or has no mouse, would be stopped or led astray, as axe finds it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}; {[' '.join(node['html'].split())[:120] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical") or one["id"] in _ASTRAY
    ]


def enter_key(page: Page, key: str) -> None:
    """Enter a key on the login's page, once its script is loaded: until then the form does nothing."""
    page.get_by_label("Your key").fill(key)
    expect(page.locator("#login button")).to_be_enabled()
    page.keyboard.press("Enter")
