"""The log of a job: its child's lines in a file of limited size."""

from pathlib import Path
from typing import Final

MAX_BYTES: Final = 1024 * 1024
_MAX_LINE: Final = 2000  # characters
LAST_LINES: Final = 50
_CUT: Final = "further lines are left out: the log is at its limit\n"


class JobLog:
    """A log file. A position in it is a number of bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, text: str) -> None:
        """Add a line, of printable characters alone."""
        line = "".join(c if c.isprintable() else " " for c in text[:_MAX_LINE]).rstrip()
        with self._path.open("ab") as file:
            size = file.tell()
            if size < MAX_BYTES:
                data = f"{line}\n".encode(errors="backslashreplace")
                file.write(data if size + len(data) < MAX_BYTES else _CUT.encode().rjust(MAX_BYTES - size))

    def read(self, position: int) -> tuple[int, list[str]]:
        """Read the whole lines after a position; return the position after them, too."""
        try:
            with self._path.open("rb") as file:
                file.seek(position)
                size, lines = whole_lines(file.read(MAX_BYTES + len(_CUT)))
        except FileNotFoundError:
            return position, []
        return position + size, lines


def whole_lines(data: bytes) -> tuple[int, list[str]]:
    """Return the number of bytes of the whole lines in a part of a log, and the lines."""
    whole = data[: data.rfind(b"\n") + 1]
    return len(whole), whole.decode(errors="replace").splitlines()
