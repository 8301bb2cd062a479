"""The interpreter with anomalib that benches compare with: the one that is named, or one of its own."""

import os
import subprocess
import sys
from pathlib import Path

PLACE = Path(".bench-venv")
VARIABLE = "ANOMALIB_PYTHON"
_PACKAGES = "anomalib[cpu,openvino]==2.7.*"
_DONE = "installed"


class EnvironmentMissingError(ValueError):
    """There is no interpreter with anomalib, and none could be made."""


def anomalib_python(named: Path | None = None, place: Path = PLACE) -> Path:
    """An interpreter with anomalib 2.7.

    Args:
        named: which; otherwise the one in the variable ANOMALIB_PYTHON.
        place: of an environment that is made where neither says anything. pip's own settings apply, such as
            PIP_EXTRA_INDEX_URL for builds of torch for the CPU.

    Raises:
        EnvironmentMissingError: there is no such interpreter, or none could be made.
    """
    chosen = named or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if chosen is not None:
        if not chosen.is_file():
            raise EnvironmentMissingError(f"there is no interpreter {chosen}")
        return chosen
    python = place / "bin" / "python"
    if not (place / _DONE).exists():
        print(f"installing {_PACKAGES} into {place}, once", file=sys.stderr, flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", place], check=True)
            subprocess.run(
                [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", _PACKAGES],
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise EnvironmentMissingError(
                f"{_PACKAGES} could not be installed into {place}; name an interpreter that has it: "
                f"--anomalib-python, or the variable {VARIABLE}"
            ) from error
        (place / _DONE).touch()
    return python
