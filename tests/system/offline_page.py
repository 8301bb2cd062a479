"""Runs inside a network namespace of its own, which test_offline makes: loopback, and nothing else.

Opens every page in a browser there, and prints as JSON what they asked for and did not get.
"""

import json
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.support.server import Server
from tests.system.offline import expect_no_network, loopback_up
from tests.system.pages import drop, inspect, opened, site


def main(work: Path, models: Path, picture: Path) -> None:
    """Serve, inspect by hand, and look at every page."""
    loopback_up()
    expect_no_network()
    asked: list[str] = []
    missing: list[str] = []
    with site(Server(models, work)) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        base = served.url
        identifier = inspect(served.client, picture.read_bytes())["inspection_id"]
        with opened(browser, base) as page:
            page.on("request", lambda request: asked.append(request.url))
            page.on("response", lambda one: missing.append(f"{one.status} {one.url}") if not one.ok else None)
            for path in ("/scores", f"/inspections/{identifier}", "/login", "/inspect"):
                page.goto(path, wait_until="networkidle")
            drop(page, picture.name, picture.read_bytes())
            page.locator("#result img").wait_for()
            page.goto("/")
            page.locator('#state[data-state="live"]').wait_for()
            page.locator(".inspection img").first.wait_for()
        browser.close()
    print(json.dumps({"base": base, "asked": asked, "missing": missing}))  # noqa: T201 the answer to the test


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
