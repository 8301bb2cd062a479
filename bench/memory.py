"""Memory of processes, as /proc tells it."""

import re
from pathlib import Path


def peak_bytes(pid: int) -> int:
    """The largest resident set of a process since it became the program that it is; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0
