"""File permissions for tests of unreadable files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_roots_rights() -> Iterator[None]:
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
