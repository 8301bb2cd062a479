"""The documentation site: built strictly, and read without the internet."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


def test_every_page_is_in_the_navigation(site: Path) -> None:
    docs = ROOT / "docs"
    start = (site / "index.html").read_text()
    reached = {link.removeprefix("./") for link in re.findall(r'href="([^"#]+)"', start)}
    for page in set(docs.rglob("*.md")) - {docs / "images" / "README.md"}:
        path = page.relative_to(docs).with_suffix(".html").as_posix().replace("README", "index")
        assert path in reached, f"docs/.nav.yml does not lead to {path}"


def test_pages_load_nothing_from_the_internet(site: Path) -> None:
    for page in site.rglob("*.html"):
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text())
        assert [tag for tag in tags if re.search(r'(?:src|href)="(?:https?:)?//', tag)] == []


def test_search_works_in_pages_opened_from_disk(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("false-reject rate")
    page.wait_for_selector('a[href*="glossary.html"]:visible')
    page.close()
