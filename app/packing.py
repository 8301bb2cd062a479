"""A bundle as one file, to be carried to a server: a ZIP archive of one version's directory.

An uploaded archive is unpacked member by member: each name and kind is checked, and the sizes are limited.
"""

import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from app.free_disk import expect_room_for_upload
from flows.fastflow import bundle
from flows.fastflow.manifest import MAX_FILES

_CHUNK: Final = 1024 * 1024
# The earliest time that the format knows: the same bundle makes the same archive.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


class ArchiveError(ValueError):
    """An archive is damaged, or was not made by `flowgauge models pack`."""


def pack(folder: Path, target: BinaryIO) -> None:
    """Write a verified bundle into an archive.

    Args:
        folder: models/<category>/<version>.
        target: a file open for writing.

    Raises:
        BundleError: the bundle is damaged.
    """
    manifest = bundle.verify(folder)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        # The manifest first: a reader knows at once what the rest is.
        for name in (bundle.MANIFEST, *sorted(manifest.files)):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            with (folder / name).open("rb") as source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, _CHUNK)


class Archive:
    """An uploaded archive; a context manager.

    Args:
        path: a file.
        max_bytes: bytes that all members may have together.

    Raises:
        ArchiveError: it is no archive of a bundle; the message says why and names no path.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        with _damage():
            self._archive = zipfile.ZipFile(path)
        try:
            self._members = _checked(self._archive.infolist(), max_bytes)
        except ArchiveError:
            self._archive.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def manifest(self) -> bytes:
        """Return the manifest's bytes.

        Raises:
            ArchiveError: there is none, it is too large, or damaged.
        """
        info = self._members.get(bundle.MANIFEST)
        if info is None:
            raise ArchiveError(
                f"The archive has no {bundle.MANIFEST} at its top. Make it with `flowgauge models pack`."
            )
        if info.file_size > bundle.MAX_MANIFEST:
            raise ArchiveError(f"Its {bundle.MANIFEST} has more than {bundle.MAX_MANIFEST:,} bytes.")
        return b"".join(self._contents(info))

    def extract(self, folder: Path) -> None:
        """Write all members below a new directory.

        Raises:
            ArchiveError: a member is damaged.
            OSError: the disk is full, or would have too little left for inspections.
        """
        folder.mkdir(parents=True)
        expect_room_for_upload(folder, sum(info.file_size for info in self._members.values()))
        for name, info in self._members.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.writelines(self._contents(info))

    def _contents(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        # A member never gives more bytes than the size that was checked: zipfile stops there.
        with _damage(), self._archive.open(info) as member:
            while chunk := member.read(_CHUNK):
                yield chunk


def _checked(infos: list[zipfile.ZipInfo], max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the files of an archive by name, if all have allowed names, kinds and sizes."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if info.is_dir() and bundle.is_file_name(name[:-1]):
            continue  # its files create it
        if not bundle.is_file_name(name):
            raise ArchiveError(
                f"A member is named {name[:100]!r}; names are relative, of letters, digits, '.', '_', "
                "'-' and '/', and no part begins with a dot."
            )
        if name in members:
            raise ArchiveError(f"The archive holds {name!r} more than once.")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise ArchiveError(f"The member {name!r} is no plain file but a link or a device.")
        members[name] = info
    folders = {str(parent) for name in members for parent in Path(name).parents}
    if clash := folders & members.keys():
        raise ArchiveError(f"The archive holds {min(clash)!r} both as a file and as a directory.")
    if len(members) > MAX_FILES + 1:
        raise ArchiveError(f"The archive has {len(members)} members; at most {MAX_FILES + 1} are allowed.")
    if sum(info.file_size for info in members.values()) > max_bytes:
        raise ArchiveError(f"Unpacked, the bundle would have more than {max_bytes:,} bytes, the limit.")
    return members


@contextmanager
def _damage() -> Iterator[None]:
    """Turn what zipfile raises for damaged archives, which is almost anything, into one error."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        ArithmeticError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ArchiveError(
            "This is no ZIP archive, or it is damaged. Make one with `flowgauge models pack` and send it."
        ) from error
