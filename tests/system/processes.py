"""FlowGauge commands and servers as child processes."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from app.auth.key_store import KeyStore
from app.auth.permissions import COMMAND_LINE
from app.database.engine import Database
from app.schemas.access import Role

ENGINE_CACHE = "FLOWGAUGE_ENGINE_CACHE"
COMMAND = [sys.executable, "-m", "flowgauge"]


def environment() -> dict[str, str]:
    """Return an environment without FlowGauge settings, except the compile cache."""
    # With as many threads as it takes by itself.
    dropped = ("FLOWGAUGE_", "HF_", "COVERAGE_", "OMP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return kept | {"PYTHONUNBUFFERED": "1", ENGINE_CACHE: os.environ[ENGINE_CACHE]}


@dataclass(frozen=True)
class FlowGauge:
    """Runner of `flowgauge` in a working directory."""

    cwd: Path

    def start(self, *arguments: str | Path, log: IO[str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=log or subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.cwd,
            env=environment(),
        )

    def run(self, *arguments: str | Path, code: int = 0) -> str:
        """Run a command, require its exit code, and return its output or error."""
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=self.cwd,
            env=environment(),
            timeout=540,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr


def first_key(history: Path, role: Role) -> str:
    """Create a key before the first start of a server, which then requires keys."""
    history.mkdir()
    database = Database(f"sqlite:///{history / 'history.sqlite'}")
    database.upgrade()
    _, key = KeyStore(database).create(COMMAND_LINE, role, "the first")
    database.close()
    return key
