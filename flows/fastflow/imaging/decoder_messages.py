"""Suppression of the messages of libpng, libjpeg and libtiff on standard error.

They write a line for each fault to C's ``stderr``, without the name of the file, and neither OpenCV nor
Pillow can set another handler. In the GNU C library programs may assign the variable ``stderr`` (its
manual, "Standard Streams"). While an image is decoded, the variable is a stream to /dev/null. File
descriptor 2, which Python and its logging write to, does not change.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _CStderr:
    """C's ``stderr``, redirected while at least one thread is inside `silenced`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        try:
            libc = ctypes.CDLL(None)
            self._variable: ctypes.c_void_p | None = ctypes.c_void_p.in_dll(libc, "stderr")
        except (OSError, TypeError, ValueError):  # another C library
            self._variable = None
            return
        libc.fopen.restype = ctypes.c_void_p
        self._real = self._variable.value
        self._nowhere = libc.fopen(os.fsencode(os.devnull), b"w")

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Discard what any thread writes to C's ``stderr`` meanwhile."""
        if self._variable is None or not self._nowhere:
            yield
            return
        with self._lock:
            self._users += 1
            self._variable.value = self._nowhere
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._variable.value = self._real


silenced = _CStderr().silenced
