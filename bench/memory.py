"""Memory of processes, as /proc tells it."""

import re
from pathlib import Path


def peak_bytes(pid: int) -> int:
    """The largest resident set of a process since it became the program that it is; 0 if it has ended."""
    try:
        return status_bytes(pid, "VmHWM")
    except (OSError, LookupError):  # of one that nobody has waited for yet the memory is gone, too
        return 0


def status_bytes(pid: int, field: str) -> int:
    """A field of /proc/PID/status that is a size, such as VmRSS; proc(5).

    Raises:
        OSError: the process has ended.
        LookupError: it has no such field.
    """
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError(f"process {pid} has no {field}")
    return 1024 * int(found[1])
