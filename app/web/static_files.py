"""Style sheets and scripts of the pages and of Swagger UI, in memory (two megabytes)."""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

_FOLDERS: Final = (Path(__file__).parent / "static", Path(str(files("fastapi_swagger"))) / "resources")
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class StaticFile(NamedTuple):
    """A file and its media type."""

    content: bytes
    media_type: str


class StaticFiles(NamedTuple):
    """All files of the page.

    Attributes:
        files: by name.
        build: hash of all files, part of their addresses. Browsers may cache files for ever and never mix
            two builds, because modules import each other by relative names.
    """

    files: dict[str, StaticFile]
    build: str

    def address(self, name: str) -> str:
        """Return the path of a file; KeyError for an unknown name."""
        if name not in self.files:
            raise KeyError(name)
        return f"/static/{self.build}/{name}"


@cache
def static_files() -> StaticFiles:
    paths = sorted(path for folder in _FOLDERS for path in folder.iterdir() if path.suffix in _MEDIA_TYPES)
    files = {path.name: StaticFile(path.read_bytes(), _MEDIA_TYPES[path.suffix]) for path in paths}
    digest = hashlib.sha256(repr(files).encode())
    return StaticFiles(files, digest.hexdigest()[:16])
