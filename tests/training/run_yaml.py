"""A run's YAML as a file."""

from pathlib import Path


def write(folder: Path, text: str) -> Path:
    """Write it into a folder; gives the file."""
    path = folder / "run.yaml"
    path.write_text(text)
    return path
