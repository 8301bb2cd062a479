"""The interpreter with anomalib that benchmarks compare with; `make bench` makes one."""

import os
from pathlib import Path

VARIABLE = "ANOMALIB_PYTHON"
_MADE = Path(".bench-venv/bin/python")


class EnvironmentMissingError(ValueError):
    """There is no interpreter with anomalib."""


def anomalib_python(named: Path | None = None) -> Path:
    """The interpreter that is named, or that of the variable ANOMALIB_PYTHON, or of `.bench-venv`.

    Raises:
        EnvironmentMissingError: there is no such interpreter.
    """
    chosen = named or Path(os.environ.get(VARIABLE) or _MADE)
    if not chosen.is_file():
        raise EnvironmentMissingError(
            f"there is no interpreter {chosen}; `make bench` makes one, or name one with anomalib: "
            f"--anomalib-python, or the variable {VARIABLE}"
        )
    return chosen
