"""Teaching a product in a real browser, from an empty server and without a shell."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.support.server import Server
from tests.system.pages import (
    TIMEOUT_MS,
    drop_all,
    faultless,
    opened,
    serious,
    tab_to,
)

expect.set_options(timeout=TIMEOUT_MS)
Images = dict[str, list[bytes]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server without models, products or inspections."""
    (tmp_path / "models").mkdir()
    with Server(tmp_path / "models", tmp_path / "server") as server:
        yield server


def create(page: Page, name: str) -> None:
    """Create a product by keyboard alone, from the empty wall."""
    page.goto("/")
    tab_to(page, page.get_by_role("link", name="Teach your first product"))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name of the product")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    expect(page.locator("#now-state")).to_have_text("Nothing yet: it has no images.")


def test_broken_files_are_marked_and_others_added(
    browser: Browser, server: Server, tiny_images: Images
) -> None:
    good = tiny_images["good"][0]
    whole = io.BytesIO()
    Image.open(io.BytesIO(good)).save(whole, "JPEG")
    broken = {
        "empty.png": b"",
        "text.png": b"no image",
        "cut.png": good[: len(good) // 2],
        "cut.jpg": whole.getvalue()[:-200],
        "<b>name.png": b"\x89PNG\r\n\x1a\n",
    }
    with opened(browser, server.url) as page, faultless(page):
        create(page, "part")
        drop_all(page, {"first.png": good, **broken, "last.png": tiny_images["good"][1], "copy.png": good})
        expect(page.locator("#progress")).to_have_text("Added: 2. Already there: 1. Refused: 5.")
        expect(page.locator("#grid .name")).to_have_text(["last.png", "first.png"])
        expect(page.locator("#problems li")).to_have_text([re.compile(re.escape(name)) for name in broken])
        assert serious(page) == []
