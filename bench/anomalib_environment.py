"""Interpreter in which anomalib is installed; `make bench` creates one."""

import os
from pathlib import Path

VARIABLE = "ANOMALIB_PYTHON"
_DEFAULT = Path(".bench-venv/bin/python")


class EnvironmentMissingError(ValueError):
    """No interpreter with anomalib was found."""


def anomalib_python(named: Path | None = None) -> Path:
    """Return the named interpreter, else that of ANOMALIB_PYTHON, else that of `.bench-venv`.

    Raises:
        EnvironmentMissingError: it does not exist.
    """
    chosen = named or Path(os.environ.get(VARIABLE) or _DEFAULT)
    if not chosen.is_file():
        raise EnvironmentMissingError(
            f"no interpreter at {chosen}. Run `make bench`, which creates one, or name one with anomalib: "
            f"--anomalib-python PATH, or the variable {VARIABLE}."
        )
    return chosen
