"""A trained model as a directory: written whole or not at all, verified when read, no pickle anywhere.

models/<category>/<version>/manifest.json, flow.safetensors, golden/, report/
models/<category>/active        the version that serves and, in a second line, the one that served before it
models/<category>/calibrations/<version>/     made later, of good pictures of the line; see
app/calibrations.py models/backbones/               weights of frozen backbones, shared by all categories
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from flows.fastflow import conformal
from flows.fastflow.manifest import MAX_FILES, Manifest
from flows.fastflow.plain_files import (
    FileError,
    read_file,
    remove_directory,
    replace_file,
    sha256_of,
    sizes,
    sweep,
    temporary_directory,
)

BACKBONES = "backbones"
MANIFEST = "manifest.json"
FLOW = "flow.safetensors"
ACTIVE = "active"
CALIBRATIONS = "calibrations"
MAX_BYTES = 4 * 2**30  # of a bundle
MAX_MANIFEST = 16 * 2**20
_LOCK_SECONDS = 30
_CATEGORY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*")


class BundleError(ValueError):
    """A bundle is damaged, does not fit this version of FlowGauge, or breaks its own promises."""


class UnknownModelError(BundleError):
    """There is no such category or version in the models folder."""


class ConflictError(BundleError):
    """What was asked for does not fit what is in the models folder."""


def is_category(name: str) -> bool:
    """Whether a category can have this name."""
    return name != BACKBONES and _CATEGORY.fullmatch(name) is not None


def is_version(name: str) -> bool:
    """Whether a version can have this name."""
    # Files that lie beside the versions end so, such as the settings of a category.
    return (
        name not in (ACTIVE, CALIBRATIONS)
        and not name.endswith(".json")
        and _VERSION.fullmatch(name) is not None
    )


def is_file_name(name: str) -> bool:
    """Whether a file in a bundle can have this name, relative to the bundle's directory."""
    return len(name) <= 255 and _FILE.fullmatch(name) is not None


def check_category(category: str) -> str:
    """Return the category, or raise BundleError if it cannot be one."""
    if not is_category(category):
        raise BundleError(
            f"{category!r} cannot be a category: up to 64 of a-z, 0-9, _ and -, starting with a letter or a "
            f"digit, and not {BACKBONES!r}"
        )
    return category


def categories(models: Path) -> list[str]:
    """Categories with at least one version, sorted."""
    if not models.is_dir():
        return []
    names = (d.name for d in models.iterdir() if d.is_dir())
    return sorted(n for n in names if is_category(n) and versions(models, n))


def versions(models: Path, category: str) -> list[str]:
    """Versions of a category, oldest first."""
    folder = models / category
    if not is_category(category) or not folder.is_dir():
        return []
    return sorted(d.name for d in folder.iterdir() if _is_there(models, category, d.name))


def active_version(models: Path, category: str) -> str | None:
    """The version that serves, or None if none was activated or the file holds no version's name."""
    return _pointer(models, category)[0]


def previous_version(models: Path, category: str) -> str | None:
    """The version that served before the active one, or None if there is none or it was deleted."""
    previous = _pointer(models, category)[1]
    return previous if previous and _is_there(models, category, previous) else None


def resolve(models: Path, category: str, version: str | None = None) -> Path:
    """The directory of a version, by default of the active one.

    Raises:
        UnknownModelError: there is no such category or version.
    """
    wanted = version or active_version(models, category)
    if wanted is not None and _is_there(models, category, wanted):
        return models / category / wanted
    known = versions(models, category)
    if not known:
        raise UnknownModelError(
            f"no model of category {category!r} in {models}; there are: "
            f"{', '.join(categories(models)) or 'none'}"
        )
    if wanted is None:
        raise UnknownModelError(f"category {category!r} has no active version; there are: {known}")
    raise UnknownModelError(f"category {category!r} has no version {wanted!r}; there are: {known}")


def activate(models: Path, category: str, version: str) -> None:
    """Make a version the one that serves, in one atomic step; the one before is remembered.

    Raises:
        UnknownModelError: there is no such category or version.
    """
    resolve(models, category, version)
    with locked(models, category):
        resolve(models, category, version)
        before = active_version(models, category)
        if before != version:
            lines = [version, *([before] if before else [])]
            replace_file(models / category / ACTIVE, "\n".join(lines).encode())


def delete(models: Path, category: str, version: str) -> None:
    """Remove a version that does not serve.

    Raises:
        UnknownModelError: there is no such category or version.
        ConflictError: it is the active one.
    """
    resolve(models, category, version)
    with locked(models, category):
        folder = resolve(models, category, version)
        if version == active_version(models, category):
            raise ConflictError(f"{category}/{version} is active; activate another version first")
        remove_directory(folder)
        renewed = models / category / CALIBRATIONS / version
        if renewed.is_dir():
            remove_directory(renewed)


def head_prefixes(heads: int) -> list[str]:
    """What the names of each head's tensors begin with in a bundle; nothing where there is one head."""
    return [""] if heads == 1 else [f"fold_{k}." for k in range(heads)]


def parse_manifest(data: bytes, origin: str) -> Manifest:
    """Read a manifest from its bytes; `origin` names them in errors.

    Raises:
        BundleError: it is too large, not valid, or of another schema version.
    """
    if len(data) > MAX_MANIFEST:
        raise BundleError(f"{origin} is larger than {MAX_MANIFEST:,} bytes")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise BundleError(f"{origin} is not valid: {where}: {first['msg']}") from error


def read_manifest(bundle: Path) -> Manifest:
    """Read a manifest without looking at the other files.

    Raises:
        BundleError: it is missing, not valid, or of another schema version.
    """
    return _parse(bundle, _manifest_bytes(bundle))


def manifest_sha256(bundle: Path, manifest: Manifest) -> str:
    """The sha256 of the file that a manifest was read from.

    Raises:
        BundleError: the file says something else by now.
    """
    data = _manifest_bytes(bundle)
    if _parse(bundle, data) != manifest:
        raise BundleError(f"{bundle} was changed while it was read")
    return hashlib.sha256(data).hexdigest()


def verify(bundle: Path) -> Manifest:
    """Read a manifest and check that the bundle holds exactly the files it lists, unchanged.

    Raises:
        BundleError: a file is missing, extra, changed, too large, or no plain file; or a threshold is not the
            one that the calibration scores give.
    """
    manifest = read_manifest(bundle)
    try:
        present = sizes(bundle, 2 * MAX_FILES)
    except FileError as error:
        raise BundleError(f"{error}; a bundle has only plain files") from error
    except OSError as error:
        raise BundleError(f"{bundle} cannot be read") from error
    present.pop(MANIFEST, None)
    if present.keys() != manifest.files.keys():
        odd = sorted(present.keys() ^ manifest.files.keys())
        raise BundleError(f"{bundle} does not hold the files that its manifest lists: {odd[:10]}")
    if sum(present.values()) > MAX_BYTES:
        raise BundleError(f"{bundle} has more than {MAX_BYTES:,} bytes")
    strangers = {golden.file for golden in manifest.golden} - manifest.files.keys()
    if strangers:
        raise BundleError(f"{bundle} names golden pictures that it does not hold: {sorted(strangers)}")
    for name, sha256 in manifest.files.items():
        if _sha256(bundle / name, present[name]) != sha256:
            raise BundleError(f"{bundle / name} was changed: its sha256 is not the manifest's")
    _check_thresholds(bundle, manifest)
    return manifest


def read_verified(bundle: Path, manifest: Manifest, name: str, max_bytes: int) -> bytes:
    """The bytes of a file of a bundle, which are those that the manifest lists even if it changes meanwhile.

    Raises:
        BundleError: the file is not there, is larger than `max_bytes`, or was changed.
    """
    try:
        data = read_file(bundle / name, max_bytes)
    except FileError as error:
        raise BundleError(f"{bundle / name} does not fit its manifest: {error}") from error
    except OSError as error:
        raise BundleError(f"{bundle / name} cannot be read") from error
    if hashlib.sha256(data).hexdigest() != manifest.files.get(name):
        raise BundleError(f"{bundle / name} was changed: its sha256 is not the manifest's")
    return data


def publish(
    models: Path, manifest: Manifest, tensors: Mapping[str, Tensor], files: Mapping[str, bytes]
) -> Path:
    """Write a bundle under a temporary name and rename it into place.

    Args:
        models: the models folder.
        manifest: its `files` is filled in here.
        tensors: the flows' weights and the normalisation's statistics.
        files: further files by relative name, such as golden pictures and the report.

    Returns:
        The bundle's directory.

    Raises:
        BundleError: the version exists, or a name cannot be used.
    """
    _expect_free(models, manifest)
    for name in files:
        if not is_file_name(name) or name in (MANIFEST, FLOW):
            raise BundleError(f"{name!r} cannot be the name of a file in a bundle")
    contents = {FLOW: save(dict(tensors)), **files}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = manifest.model_copy(update={"files": hashes})
    sweep(models / manifest.category)
    with temporary_directory(models / manifest.category) as temporary:
        for name, data in {
            **contents,
            MANIFEST: manifest.model_dump_json(indent=1).encode(),
        }.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return move_into_place(temporary, models, manifest)


def move_into_place(staged: Path, models: Path, manifest: Manifest) -> Path:
    """Rename a complete bundle, on the same disk, to where its manifest says that it belongs.

    Returns:
        The bundle's directory.

    Raises:
        BundleError: a name cannot be used.
        ConflictError: the version exists.
    """
    target = _expect_free(models, manifest)
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.chmod(0o755)
    try:
        staged.rename(target)
    except OSError:
        _expect_free(models, manifest)  # somebody else was faster
        raise
    return target


@contextmanager
def locked(models: Path, category: str) -> Iterator[None]:
    """Hold a category against other processes that change it too.

    Raises:
        ConflictError: another one has held it for half a minute.
    """
    try:
        with FileLock(models / category / ".lock", timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        raise ConflictError(f"another process has been changing {category!r} for long; try again") from error


def _pointer(models: Path, category: str) -> tuple[str | None, str | None]:
    """The active version and the one before, as the file says; None for what it does not."""
    if not is_category(category):
        return None, None
    try:
        text = read_file(models / category / ACTIVE, 1000).decode(errors="replace")
    except (FileError, FileNotFoundError, NotADirectoryError):
        return None, None
    lines = [line.strip() for line in text.strip().splitlines()]
    if not 1 <= len(lines) <= 2 or not all(map(is_version, lines)):
        return None, None
    return lines[0], lines[1] if len(lines) == 2 else None


def _is_there(models: Path, category: str, version: str) -> bool:
    return (
        is_category(category) and is_version(version) and (models / category / version / MANIFEST).is_file()
    )


def _expect_free(models: Path, manifest: Manifest) -> Path:
    check_category(manifest.category)
    if not is_version(manifest.version):
        raise BundleError(
            f"{manifest.version!r} cannot be a version: up to 64 letters, digits, '.', '_' and '-', starting "
            f"with a letter or a digit, not ending in .json and not {ACTIVE!r} or {CALIBRATIONS!r}"
        )
    target = models / manifest.category / manifest.version
    if target.exists() or target.is_symlink():
        raise ConflictError(f"{target} exists already; versions are never overwritten")
    return target


def _manifest_bytes(bundle: Path) -> bytes:
    try:
        return read_file(bundle / MANIFEST, MAX_MANIFEST)
    except FileError as error:
        raise BundleError(f"{error}; a bundle has only plain files") from error
    except OSError as error:
        raise BundleError(f"{bundle} has no readable {MANIFEST}") from error


def _parse(bundle: Path, data: bytes) -> Manifest:
    manifest = parse_manifest(data, str(bundle / MANIFEST))
    if (manifest.category, manifest.version) != (bundle.parent.name, bundle.name):
        raise BundleError(
            f"{bundle} says that it is {manifest.category}/{manifest.version}: it was moved or renamed"
        )
    return manifest


def _sha256(path: Path, size: int) -> str:
    try:
        return sha256_of(path, size)
    except (FileError, OSError) as error:
        raise BundleError(f"{path} was changed while it was read") from error


def _check_thresholds(bundle: Path, manifest: Manifest) -> None:
    """A manifest must not promise a rate that its own calibration scores do not give."""
    for precision, record in manifest.thresholds.items():
        calibration = manifest.calibration_of(precision)
        assert calibration is not None  # noqa: S101  (the manifest has one for each threshold)
        threshold = conformal.threshold(calibration.scores, record.target_fpr, models=manifest.heads)
        given = asdict(threshold)
        if given != record.model_dump():
            raise BundleError(
                f"{bundle}: the threshold for {precision} is not what its calibration scores give: {given}"
            )
