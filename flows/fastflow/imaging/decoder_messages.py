"""Keep what libpng, libjpeg and libtiff say about damaged pictures off standard error.

They write a line for each fault to C's ``stderr``, without a word on which file it is in, and neither OpenCV
nor Pillow lets anybody set another handler. In the GNU C library ``stderr`` is a variable that programs may
assign (its manual, "Standard Streams"): while a picture is decoded it is a stream to nowhere. File
descriptor 2, which Python and its logging write to, stays what it is.
"""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _CStderr:
    """C's ``stderr``, replaced while at least one thread wants it to be."""

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
        """Send nowhere what is written to it meanwhile, by whichever thread."""
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
