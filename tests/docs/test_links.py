"""Links between the pages of the documentation, as GitHub follows them."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCES = ("app", "flows", "training", "clients", "examples", "bench", "tests", "deploy", ".github")
_TEXTS = {".py", ".yml", ".yaml", ".conf", ".env", ".service", ".html", ".js", ".json", ".toml"}
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def without_code(page: Path) -> str:
    return re.sub(r"(?ms)^( *)(```+|~~~+).*?^\1\2$", "", page.read_text())


def links(page: Path) -> Iterator[str]:
    """Links and images that lead to files or headings of this repository."""
    text = re.sub(r"`[^`\n]+`", "", without_code(page))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", link):
            yield link


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub gives a page's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"(?m)^#+ +(.+?)\s*#*$", without_code(page)):
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{name(page)} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{name(page)} links to {link}, but no heading has this anchor"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name)
def test_site_pages_link_only_within_docs(page: Path) -> None:
    """The site holds nothing but docs/: a link to a file outside it would break there."""
    outside = [link for link in links(page) if not (page.parent / link).resolve().is_relative_to(DOCS)]
    assert outside == [], f"{name(page)}: write the path as `code` instead of a link"


def test_code_names_existing_pages() -> None:
    files = [path for path in ROOT.glob("*") if path.is_file() and path.suffix != ".md"]
    for folder in SOURCES:
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in _TEXTS]
    for file in files:
        for page, anchor in re.findall(
            r"\bdocs/([\w/-]+\.md)(?:#([\w-]+))?", file.read_text(errors="replace")
        ):
            assert (DOCS / page).is_file(), f"{name(file)} names docs/{page}, which is not there"
            assert not anchor or anchor in anchors(DOCS / page), f"{name(file)} names docs/{page}#{anchor}"
