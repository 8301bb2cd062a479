"""A cache in memory of files that were read last."""

import threading
from collections import OrderedDict
from collections.abc import Callable


class RecentReads:
    """Contents of files that never change, by name. Thread-safe.

    It is small: a page draws one inspection three times within a second, and browsers keep what they have. On
    a disk it would need a check of each file and a cleaning, and an export would replace all of it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[str, bytes] = OrderedDict()  # the least recently read first
        self._lock = threading.Lock()

    def get(self, name: str, read: Callable[[str], bytes]) -> bytes:
        """Return a file's content, read by a function if it is not known."""
        with self._lock:
            if (known := self._known.get(name)) is not None:
                self._known.move_to_end(name)
                return known
        data = read(name)
        with self._lock:
            self._bytes += len(data) - len(self._known.pop(name, b""))
            self._known[name] = data
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._known.popitem(last=False)[1])
        return data

    def forget(self, name: str) -> None:
        """Read a file again next time: its content was damaged."""
        with self._lock:
            self._bytes -= len(self._known.pop(name, b""))
