"""What the operator's pages weigh, and when a slow computer first shows something.

    flowgauge serve &
    python -m bench.page_weight http://127.0.0.1:8000 [--slower 6] [--rounds 5] [--chromium PATH]

Each page is opened with an empty cache in Chromium, the processor slowed down. Weight is what comes over the
network, headers too: the page with its scripts, styles and icons, and apart from that the pictures of
inspections. First paint is the browser's first-contentful-paint, counted from the navigation. The wall is
ready when it says that it is live, the others when nothing has been loaded for half a second. Medians.
"""

import argparse
import shutil
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Browser, sync_playwright

PAGES = ("/", "/inspect", "/scores", "/models", "/report")
# Pictures further down are loaded when somebody scrolls to them.
SHOWN = "() => [...document.images].every(i => i.complete || i.getBoundingClientRect().top > innerHeight)"
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"


@dataclass(frozen=True)
class Visit:
    """One opening of a page.

    Attributes:
        own: bytes of the page itself.
        pictures: bytes of inspections' pictures.
        paint: milliseconds to the first paint.
        ready: milliseconds until it was ready.
    """

    own: int
    pictures: int
    paint: float
    ready: float


def visit(browser: Browser, url: str, path: str, slower: float) -> Visit:
    """Open a page with an empty cache, on a processor so many times slower.

    Raises:
        playwright.sync_api.Error: the page does not come, or is not ready within half a minute.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        page = context.new_page()
        session = context.new_cdp_session(page)
        addresses: dict[str, str] = {}
        weight: Counter[str] = Counter()

        def answered(event: dict[str, Any]) -> None:
            addresses[event["requestId"]] = event["response"]["url"]

        def finished(event: dict[str, Any]) -> None:
            weight[addresses.get(event["requestId"], url)] += round(event["encodedDataLength"])

        session.on("Network.responseReceived", answered)
        session.on("Network.loadingFinished", finished)
        session.send("Network.enable")
        session.send("Emulation.setCPUThrottlingRate", {"rate": slower})
        if path == "/":
            page.goto(url + path)
            page.locator('#state[data-state="live"]').wait_for()
        else:
            page.goto(url + path, wait_until="networkidle")
        ready = page.evaluate("() => performance.now()")
        paint = page.evaluate(PAINT)
        # The wall is live before its pictures have come.
        page.wait_for_function(SHOWN)
        pictures = sum(size for address, size in weight.items() if "/inspections/" in address)
        return Visit(weight.total() - pictures, pictures, paint, ready)
    finally:
        context.close()


def row(path: str, visits: list[Visit]) -> str:
    """A line of the table."""
    middle = {
        name: statistics.median(getattr(one, name) for one in visits)
        for name in ("own", "pictures", "paint", "ready")
    }
    return (
        f"| `{path}` | {middle['own'] / 1000:.0f} | {middle['pictures'] / 1000:.0f} "
        f"| {middle['paint']:.0f} | {middle['ready']:.0f} |"
    )


def main() -> None:
    """Open every page and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--slower", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    options = parser.parse_args()
    print("| page | kB | pictures, kB | first paint, ms | ready, ms |")
    print("|---|---|---|---|---|")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium)
        for path in PAGES:
            visits = [
                visit(browser, options.url.rstrip("/"), path, options.slower) for _ in range(options.rounds)
            ]
            print(row(path, visits), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
