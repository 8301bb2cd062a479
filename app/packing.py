"""A bundle as one file, to be carried to a server: a ZIP archive of one version's directory.

An uploaded archive is unpacked member by member: each name and kind is checked, and the sizes are limited.
"""

import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from app.free_disk import expect_room_for_upload
from flows.fastflow import bundle
from flows.fastflow.manifest import MAX_FILES, Manifest

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


def unpack(
    path: Path, staging: Path, max_bytes: int, expect: Callable[[Manifest], None] = lambda _: None
) -> Manifest:
    """Unpack an uploaded archive to <category>/<version> below a folder.

    Args:
        path: the archive.
        staging: the folder.
        max_bytes: bytes that all members may have together.
        expect: called with the manifest before anything is written; may raise to refuse.

    Raises:
        ArchiveError: it is no archive of a bundle, or damaged; the message says why and names no path.
        BundleError: its manifest is not valid.
        OSError: the disk is full, or would have too little left for inspections.
    """
    with _damage():
        archive = zipfile.ZipFile(path)
    with archive:
        members = _checked(archive.infolist(), max_bytes)
        info = members.get(bundle.MANIFEST)
        if info is None:
            raise ArchiveError(
                f"The archive has no {bundle.MANIFEST} at its top. Make it with `flowgauge models pack`."
            )
        if info.file_size > bundle.MAX_MANIFEST:
            raise ArchiveError(f"Its {bundle.MANIFEST} has more than {bundle.MAX_MANIFEST:,} bytes.")
        data = b"".join(_contents(archive, info))
        manifest = bundle.parse_manifest(data, f"Its {bundle.MANIFEST}")
        expect(manifest)
        folder = staging / manifest.category / manifest.version
        folder.mkdir(parents=True)
        expect_room_for_upload(folder, sum(info.file_size for info in members.values()))
        for name, info in members.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("xb") as file:
                file.writelines(_contents(archive, info))
    return manifest


def _contents(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    # A member never gives more bytes than the size that was checked: zipfile stops there.
    with _damage(), archive.open(info) as member:
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
