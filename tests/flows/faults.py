"""Faults of faults.yaml, seeded into the flows one at a time."""

import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import yaml

from flows import Planar
from tests.flows.cases import CASES, Case, coupling, vectors
from tests.flows.contract import jacobians

# Cases that only some faults need.
EXTRA_CASES = [
    Case("coupling of equal halves", coupling, vectors),
    # Near the plane, where a non-invertible planar flow folds.
    Case("planar, near the plane", lambda event: Planar(event[0]), vectors, domain=lambda x: 0.1 * x),
]


@dataclass(frozen=True)
class Fault:
    """Fault with the case and checks that must catch it, and its edits of the source."""

    case: Case
    checks: list[str]
    edits: list[dict[str, str]]

    @contextmanager
    def seeded(self) -> Iterator[None]:
        functions = [inspect.unwrap(pkgutil.resolve_name(edit["in"])) for edit in self.edits]
        before = [function.__code__ for function in functions]
        jacobians.cache_clear()
        try:
            for function, edit in zip(functions, self.edits, strict=True):
                function.__code__ = edited(function, edit["old"], edit["new"])
            yield
        finally:
            for function, code in zip(functions, before, strict=True):
                function.__code__ = code
            jacobians.cache_clear()


def edited(function: FunctionType, old: str, new: str) -> CodeType:
    """Compile a function with one part of its source replaced."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} has {source.count(old)} times: {old}"
    # Inside an outer function, so that super() finds the class in its cell.
    code = compile(
        f"def outer(__class__):\n{textwrap.indent(source.replace(old, new), ' ')}", "fault", "exec"
    )
    for name in ("outer", function.__name__):
        [code] = [c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name]
    return code


def read() -> dict[str, Fault]:
    cases = {case.name: case for case in [*CASES, *EXTRA_CASES]}
    found: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
    return {
        name: Fault(cases[of["case"]], sorted(of["checks"].split()), of["edits"])
        for name, of in found.items()
    }


FAULTS = read()
