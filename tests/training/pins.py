"""Pinned images for tests."""

from collections.abc import Sequence
from pathlib import Path

from flows.fastflow.files.plain_files import file_hashes
from training.data.pinned_images import PinnedImage


def pins(paths: Sequence[Path]) -> list[PinnedImage]:
    """The files, each with what it holds now."""
    return [PinnedImage(*one) for one in zip(paths, file_hashes(paths), strict=True)]
