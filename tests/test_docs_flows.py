"""docs/flows.md: its snippets print what it says, and it leaves nothing out."""

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


def test_every_public_name_is_explained() -> None:
    spans = " ".join(re.findall(r"`[^`\n]+`", BLOCK.sub("", PAGE.read_text())))
    public = [*flows.__all__, *recipes.__all__]
    assert [name for name in public if not re.search(rf"\b{name}\b", spans)] == []
