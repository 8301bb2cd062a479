"""The interface of a store of files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class StoreUnavailable(OSError):  # noqa: N818  (a state, which may pass)
    """A store does not answer or refuses; a retry can help. A change may have been made or not."""


class Store(Protocol):
    """Files by name, such as "maps/ef/ID.npy". Safe to use from several threads and servers.

    A file is complete or absent at any time. Names begin with no dot.

    Raises:
        StoreUnavailable: from each method, if the network or the service fails.
        OSError: from each method, if a folder's disk does.
    """

    @property
    def folder(self) -> Path | None:
        """The folder of the files, for hard links; None if they are in no folder."""
        ...

    def read(self, name: str) -> bytes:
        """Read a file, or raise FileNotFoundError."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file in one step."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write a new file, or raise FileExistsError; of several writers exactly one succeeds."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        ...

    def list(self, folder: str) -> Iterator[str]:
        """Yield the names of all files below a folder, at any depth."""
        ...

    def folders(self, folder: str) -> Iterator[str]:
        """Yield the names of the folders in a folder that hold files."""
        ...

    def exists(self, name: str) -> bool:
        """Tell if a file exists."""
        ...
