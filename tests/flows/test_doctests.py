"""Examples in the docstrings."""

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
