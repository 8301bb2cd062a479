"""Run the tutorial of the flow library, and hold its reference complete."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import flows
from flows import recipes

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorials" / "flow-library.md"
REFERENCE = ROOT / "docs" / "reference" / "flows.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_snippets(text: str) -> list[str]:
    """Run all blocks of Python in one namespace and return doctest's failure reports."""
    names: dict[str, Any] = {}
    reports: list[str] = []
    for block in BLOCK.finditer(text):
        line = text[: block.start(1)].count("\n")
        test = doctest.DocTestParser().get_doctest(block[1], names, TUTORIAL.name, str(TUTORIAL), line)
        if not test.examples:
            reports.append(f"line {line}: a block of Python without a prompt is never run")
        failed, _ = doctest.DocTestRunner(verbose=False).run(test, out=reports.append, clear_globs=False)
        names = test.globs
        if failed:
            break  # the following blocks depend on this one
    return reports


@pytest.fixture
def isolated_torch() -> Iterator[None]:
    """Restore torch's seed and number of threads after the test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the matrices are too small for a second thread
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("isolated_torch")
def test_tutorial_snippets_print_what_the_page_shows() -> None:
    text = TUTORIAL.read_text()
    assert len(BLOCK.findall(text)) == text.count("```python") > 10
    assert run_snippets(text) == []


def test_tutorial_has_ten_numbered_steps() -> None:
    numbers = re.findall(r"^## (\d+)\. ", TUTORIAL.read_text(), re.MULTILINE)
    assert numbers == [str(number) for number in range(1, 11)]


def test_reference_names_every_public_name_of_flows() -> None:
    spans = " ".join(re.findall(r"`[^`\n]+`", REFERENCE.read_text()))
    public = [*flows.__all__, *recipes.__all__]
    assert [name for name in public if not re.search(rf"\b{name}\b", spans)] == []
