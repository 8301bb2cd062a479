"""Names of files that are not in UTF-8, such as old shares have."""

import os
from pathlib import Path

import pytest

LATIN_1 = os.fsdecode(b"pr\xfcf.png")
ESCAPED = r"pr\xfcf.png"


def renamed(file: Path) -> Path:
    """The file under such a name; without a file system that takes one, the test is skipped."""
    try:
        return file.rename(file.with_name(LATIN_1))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
