"""docs/flows.md: its snippets print what it says, its links lead somewhere, and it leaves nothing out."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import flows
from flows import recipes

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "flows.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def failures(text: str) -> list[str]:
    """Run every block of Python in order in one namespace; what doctest reports of those that fail."""
    names: dict[str, Any] = {}
    reports: list[str] = []
    for block in BLOCK.finditer(text):
        line = text[: block.start(1)].count("\n")
        test = doctest.DocTestParser().get_doctest(block[1], names, PAGE.name, str(PAGE), line)
        if not test.examples:
            reports.append(f"line {line}: a block of Python without a prompt, which nothing would run")
        failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=reports.append, clear_globs=False)
        names = test.globs
        if failed:
            break  # the blocks that follow stand on this one
    return reports


def without_code(text: str) -> str:
    """The text without its blocks of Python, in which brackets are no links."""
    return BLOCK.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(text: str) -> list[str]:
    """Relative links that lead to no file, or to no heading of a page."""
    dead = []
    for link in LINK.findall(without_code(text)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        file = PAGE.parent / name if name else PAGE
        target = text if not name else file.read_text() if file.is_file() else ""
        if not file.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


def left_out(text: str) -> list[str]:
    """Public names of the flows that the text does not name as code."""
    spans = " ".join(re.findall(r"`[^`\n]+`", without_code(text)))
    public = [*flows.__all__, *recipes.__all__]
    return [name for name in public if not re.search(rf"\b{name}\b", spans)]


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """The snippets set torch's default dtype and seed; their matrices are too small for a second thread."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("torch_as_it_was")
def test_every_snippet_prints_what_the_page_says() -> None:
    text = PAGE.read_text()
    assert len(BLOCK.findall(text)) == text.count("```python") > 15
    assert failures(text) == []


def test_every_link_leads_somewhere() -> None:
    text = PAGE.read_text()
    assert len(LINK.findall(text)) > 30
    assert dead_links(text) == []


def test_every_public_name_is_explained() -> None:
    assert left_out(PAGE.read_text()) == []
