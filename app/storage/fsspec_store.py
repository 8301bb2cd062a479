"""A store behind a file system of fsspec, such as S3's."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from app.storage.store import StoreUnavailable

T = TypeVar("T")

_ATTEMPTS: Final = 2  # of what can be repeated; who waits for more asks again
# Time for a file to be written. aiohttp waits without limit for the "100 Continue" that botocore asks for.
_WRITE_SECONDS: Final = 5.0
_MIN_BYTES_PER_SECOND: Final = 2**20
# After a failure all calls fail for so long: those that queue do not wait for a silent server in turn.
_PAUSE_SECONDS: Final = 1.0


class FsspecStore:
    """Files below a path of a file system.

    Args:
        fs: an fsspec file system without caches, whose `pipe_file` knows mode="create" as one step.
        path: of the store in it, without a slash at its end.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path
        self._away_until = 0.0  # of the monotonic clock

    @property
    def folder(self) -> None:
        return None

    def read(self, name: str) -> bytes:
        data: bytes = self._call(self._fs.cat_file, name)
        return data

    def write(self, name: str, data: bytes) -> None:
        self._call(lambda path: self._put(path, data), name)

    def create(self, name: str, data: bytes) -> None:
        # Once: if the first answer was lost, a second attempt would find the file and call it another's.
        self._call(lambda path: self._put(path, data, mode="create"), name, attempts=1)

    def delete(self, name: str) -> None:
        try:
            self._call(self._fs.rm_file, name)
        except FileNotFoundError:
            return

    def list(self, folder: str) -> Iterator[str]:
        yield from map(self._name, self._call(self._fs.find, folder))

    def folders(self, folder: str) -> Iterator[str]:
        try:
            found = self._call(lambda path: self._fs.ls(path, detail=True), folder)
        except FileNotFoundError:
            return
        yield from (self._name(one["name"]) for one in found if one["type"] == "directory")

    def exists(self, name: str) -> bool:
        try:
            return bool(self._call(self._fs.info, name)["type"] == "file")
        except FileNotFoundError:
            return False

    def _name(self, path: str) -> str:
        return path.rstrip("/").removeprefix(f"{self._path}/")

    def _put(self, path: str, data: bytes, **options: str) -> None:
        seconds = _WRITE_SECONDS + len(data) / _MIN_BYTES_PER_SECOND
        limit = {"timeout": seconds} if self._fs.async_impl else {}
        self._fs.pipe_file(path, data, **options, **limit)

    def _call(self, function: Callable[[str], T], name: str, attempts: int = _ATTEMPTS) -> T:
        if time.monotonic() < self._away_until:
            raise StoreUnavailable(f"the store {self._path} did not answer a moment ago")
        path = f"{self._path}/{name}".rstrip("/")
        for attempt in range(1, attempts + 1):
            try:
                return function(path)
            # Each file system has errors of its own for a network that fails.
            except Exception as error:
                fault, code = error, _s3_code(error)
                if code == "PreconditionFailed":  # s3fs knows it only from servers that name the condition
                    raise FileExistsError(f"{path} exists") from error
                # s3fs reports a missing bucket like a missing file.
                if isinstance(error, FileNotFoundError | FileExistsError) and code != "NoSuchBucket":
                    raise
            if attempt == attempts:
                self._away_until = time.monotonic() + _PAUSE_SECONDS
                raise StoreUnavailable(
                    f"the store {self._path} does not answer, or refuses {name!r} "
                    f"({type(fault).__name__}: {fault})"
                ) from fault
        raise AssertionError


def _s3_code(error: Exception) -> str | None:
    """Return the code of an answer of S3 that an error comes from."""
    response = getattr(error.__cause__, "response", None) or {}
    code: str | None = response.get("Error", {}).get("Code")
    return code
