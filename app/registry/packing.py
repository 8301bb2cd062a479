"""Packing of a bundle as a ZIP archive, to carry it to a server."""

import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from app.registry.free_disk import require_room_for_upload
from flows.fastflow.bundle import bundle, models_folder
from flows.fastflow.bundle.bundle import BundleError
from flows.fastflow.manifest import Manifest

_CHUNK: Final = 1024 * 1024
# The earliest time of the format; equal bundles make equal archives.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_ADVICE: Final = "Make it with `flowgauge models pack`."


def pack(folder: Path, target: BinaryIO) -> None:
    """Write a verified bundle, models/<category>/<version>, to an archive.

    Raises:
        BundleError: the bundle is damaged.
    """
    manifest = bundle.verify(folder)
    with zipfile.ZipFile(target, "w") as archive:
        for name in (bundle.MANIFEST, *sorted(manifest.files)):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            with (folder / name).open("rb") as source, archive.open(info, "w") as member:
                shutil.copyfileobj(source, member, _CHUNK)


def unpack(path: Path, staging: Path, category: str, max_bytes: int) -> Manifest:
    """Unpack the files that the manifest of an uploaded archive lists, without checking their hashes.

    Args:
        staging: a folder; the bundle goes to <category>/<version> below it.
        category: required category of the bundle.
        max_bytes: limit of the unpacked size.

    Raises:
        BundleError: the file is no archive of a bundle, or damaged; the message names no path.
        OSError: the disk is full, or too little would be left for inspections.
    """
    with _damage():
        archive = zipfile.ZipFile(path)
    with archive:
        sizes = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
        if bundle.MANIFEST not in sizes:
            raise BundleError(f"The archive has no {bundle.MANIFEST} at its top. {_ADVICE}")
        if sizes[bundle.MANIFEST] > bundle.MAX_MANIFEST:
            raise BundleError(f"Its {bundle.MANIFEST} has more than {bundle.MAX_MANIFEST:,} bytes.")
        data = b"".join(_contents(archive, bundle.MANIFEST))
        manifest = bundle.parse_manifest(data, f"Its {bundle.MANIFEST}")
        if manifest.category != category:
            raise BundleError(f"The bundle is of category {manifest.category[:64]!r}, not {category[:64]!r}.")
        if not models_folder.is_category(category) or not models_folder.is_version(manifest.version):
            raise BundleError("The category or the version has an invalid name.")
        if odd := sorted(sizes.keys() ^ {bundle.MANIFEST, *manifest.files}):
            raise BundleError(f"The archive does not hold the files that its manifest lists: {odd[:5]}.")
        if sum(sizes.values()) > max_bytes:
            raise BundleError(f"Unpacked, the bundle would have more than {max_bytes:,} bytes, the limit.")
        _require_plain_names(sizes)
        folder = staging / category / manifest.version
        folder.mkdir(parents=True)
        require_room_for_upload(folder, sum(sizes.values()))
        for name in sizes:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("xb") as file:
                file.writelines(_contents(archive, name))
    return manifest


def _require_plain_names(names: Iterable[str]) -> None:
    folders = {str(parent) for name in names for parent in Path(name).parents}
    for name in names:
        if not bundle.is_valid_file_name(name) or name in folders:
            raise BundleError(
                f"A file is named {name[:100]!r}; names are relative, of letters, digits, '.', '_', '-' and "
                "'/', no part begins with a dot, and no file is also a directory."
            )


def _contents(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    # zipfile never returns more bytes than the member's checked size.
    with _damage(), archive.open(name) as member:
        while chunk := member.read(_CHUNK):
            yield chunk


@contextmanager
def _damage() -> Iterator[None]:
    """Convert the many errors of zipfile for damaged archives to BundleError."""
    try:
        yield
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, ArithmeticError),
        *(EOFError, LookupError, OSError, RuntimeError, ValueError),
    ) as error:
        raise BundleError(f"This is no ZIP archive, or it is damaged. {_ADVICE}") from error
