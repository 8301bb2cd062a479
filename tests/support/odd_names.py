"""File names that are not valid UTF-8, as on old file shares."""

import os
from pathlib import Path

import pytest

LATIN_1 = os.fsdecode(b"pr\xfcf.png")
ESCAPED = r"pr\xfcf.png"


def renamed(file: Path) -> Path:
    """Return a file with such a name; skip the test if the file system refuses it."""
    try:
        return file.rename(file.with_name(LATIN_1))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
