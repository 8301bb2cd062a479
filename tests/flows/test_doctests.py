"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import flows

MODULES = ["flows", *(m.name for m in pkgutil.walk_packages(flows.__path__, "flows."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    with torch.random.fork_rng():
        failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples() -> None:
    """Without any, the test above would prove nothing."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [t for name in MODULES for t in finder.find(importlib.import_module(name)) if t.examples]
    assert "flows.flow.Flow" in {t.name for t in found}
