"""A bundle as one file, to be carried to a server: a ZIP archive of one version's directory.

What comes from elsewhere is unpacked as if an enemy had made it: member by member, each name and kind
checked, every byte counted as it is written. What the archive claims can only refuse it.
"""

import os
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
from flows.fastflow.plain_files import open_plain

_CHUNK: Final = 1024 * 1024
_DIRECTORY_BYTES: Final = 1024 * 1024  # of the archive's list of members
_END: Final = struct.Struct("<4sHHHHIIH")  # end of central directory record; APPNOTE.TXT 6.3.10, 4.3.16
_LOCATOR_BYTES: Final = 20
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The earliest time that the format knows: the same bundle makes the same archive.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


class ArchiveError(ValueError):
    """An archive is damaged, or is not what `flowgauge models pack` makes."""


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
            with open_plain(folder / name) as source, archive.open(info, "w") as member:
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
        self._max_bytes = max_bytes
        with path.open("rb") as file:
            _check_end(file)
        with _damage():
            self._archive = zipfile.ZipFile(path)
        try:
            self._members = self._check(self._archive.infolist())
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
        """The manifest's bytes.

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
        return b"".join(self._contents(info, bundle.MAX_MANIFEST))

    def extract(self, folder: Path) -> None:
        """Write all members below a new directory.

        Raises:
            ArchiveError: a member is damaged, or has more bytes than were allowed or claimed.
            OSError: the disk is full, say, or would have too little left for inspections.
        """
        folder.mkdir(parents=True)
        expect_room_for_upload(folder, sum(info.file_size for info in self._members.values()))
        left = self._max_bytes
        for name, info in self._members.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                for chunk in self._contents(info, left):
                    expect_room_for_upload(folder, len(chunk))
                    file.write(chunk)
                    left -= len(chunk)

    def _check(self, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            # What zipfile makes of the name may be harmless where the name itself was not.
            name = info.orig_filename
            if name.endswith("/") and info.file_size == 0 and bundle.is_file_name(name[:-1]):
                continue  # a directory, which its files create
            if name != info.filename or not bundle.is_file_name(name):
                raise ArchiveError(
                    f"A member is named {name[:100]!r}; names are relative, of letters, digits, '.', '_', "
                    "'-' and '/', and no part begins with a dot."
                )
            if name in members:
                raise ArchiveError(f"The archive holds {name!r} more than once.")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise ArchiveError(f"The member {name!r} is no plain file but a link or a device.")
            if info.compress_type not in _METHODS or info.flag_bits & 0x1:
                raise ArchiveError(
                    f"The member {name!r} is encrypted or compressed in an unusual way; store or deflate it."
                )
            members[name] = info
        if len(members) > MAX_FILES + 1:
            raise ArchiveError(
                f"The archive has {len(members)} members; at most {MAX_FILES + 1} are allowed."
            )
        folders = {str(parent) for name in members for parent in Path(name).parents}
        if clash := folders & members.keys():
            raise ArchiveError(f"The archive holds {min(clash)!r} both as a file and as a directory.")
        if sum(info.file_size for info in infos) > self._max_bytes:
            raise _too_large(self._max_bytes)
        return members

    def _contents(self, info: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
        """A member's bytes, in pieces, at most `limit` of them."""
        with _damage(), self._archive.open(info) as member:
            while True:
                chunk = member.read(min(_CHUNK, limit + 1))
                limit -= len(chunk)
                if limit < 0:
                    raise _too_large(self._max_bytes)
                if not chunk:
                    return
                yield chunk


@contextmanager
def _damage() -> Iterator[None]:
    """Turn what zipfile raises for damaged archives, which is almost anything, into one error."""
    try:
        yield
    except ArchiveError:
        raise
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
        raise ArchiveError("The ZIP archive is damaged. Pack and send it again.") from error


def _check_end(file: BinaryIO) -> None:
    """Refuse by its last bytes an archive whose list of members would fill the memory.

    zipfile reads that list whole, however long it claims to be, before anything can be asked of it.
    """
    size = file.seek(0, os.SEEK_END)
    wanted = _END.size + _LOCATOR_BYTES
    file.seek(max(0, size - wanted))
    tail = file.read(wanted)
    if len(tail) < _END.size or tail[-_END.size :][:4] != b"PK\5\6":
        raise ArchiveError(
            "This is no ZIP archive, it was cut off, or it ends in a comment. Make it with "
            "`flowgauge models pack`."
        )
    _, disk, _, _, entries, length, _, _ = _END.unpack(tail[-_END.size :])
    if disk or entries > 2 * MAX_FILES or length > _DIRECTORY_BYTES or tail.startswith(b"PK\6\7"):
        raise ArchiveError(
            f"The ZIP archive has more than {2 * MAX_FILES} members, or is of the 64-bit kind or in several "
            "parts. Make it with `flowgauge models pack`."
        )


def _too_large(max_bytes: int) -> ArchiveError:
    return ArchiveError(f"Unpacked, the bundle would have more than {max_bytes:,} bytes, the limit.")
