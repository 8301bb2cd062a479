"""A trained model as a directory: written whole or not at all, verified when read, no pickle anywhere.

models/<category>/<version>/manifest.json, flow.safetensors, golden/, report/
models/<category>/active        the name of the version that serves
models/backbones/               weights of frozen backbones, shared by all categories
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from flows.fastflow.manifest import Manifest

BACKBONES = "backbones"
MANIFEST = "manifest.json"
FLOW = "flow.safetensors"
ACTIVE = "active"
_CATEGORY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*")


class BundleError(ValueError):
    """A bundle is damaged, does not fit this version of FlowGauge, or breaks its own promises."""


class UnknownModelError(BundleError):
    """There is no such category or version in the models folder."""


def check_category(category: str) -> str:
    """Return the category, or raise BundleError if it cannot be one."""
    if not _is_category(category):
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
    return sorted(n for n in names if _is_category(n) and versions(models, n))


def versions(models: Path, category: str) -> list[str]:
    """Versions of a category, oldest first."""
    folder = models / category
    if not _is_category(category) or not folder.is_dir():
        return []
    return sorted(d.name for d in folder.iterdir() if _is_version(d.name) and (d / MANIFEST).is_file())


def active_version(models: Path, category: str) -> str | None:
    """The version that serves, or None if none was activated or the file holds no version's name."""
    if not _is_category(category):
        return None
    try:
        version = (models / category / ACTIVE).read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return version if _is_version(version) else None


def resolve(models: Path, category: str, version: str | None = None) -> Path:
    """The directory of a version, by default of the active one.

    Raises:
        UnknownModelError: there is no such category or version.
    """
    known = versions(models, category)
    if not known:
        raise UnknownModelError(
            f"no model of category {category!r} in {models}; there are: "
            f"{', '.join(categories(models)) or 'none'}"
        )
    wanted = version or active_version(models, category)
    if wanted is None:
        raise UnknownModelError(f"category {category!r} has no active version; there are: {known}")
    if wanted not in known:
        raise UnknownModelError(f"category {category!r} has no version {wanted!r}; there are: {known}")
    return models / category / wanted


def activate(models: Path, category: str, version: str) -> None:
    """Make a version the one that serves, in one atomic step."""
    resolve(models, category, version)
    _replace(models / category / ACTIVE, version.encode())


def read_manifest(bundle: Path) -> Manifest:
    """Read a manifest without looking at the other files.

    Raises:
        BundleError: it is missing, not valid, or of another schema version.
    """
    try:
        text = (bundle / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{bundle} has no readable {MANIFEST}") from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise BundleError(f"{bundle / MANIFEST} is not valid: {where}: {first['msg']}") from error
    if (manifest.category, manifest.version) != (bundle.parent.name, bundle.name):
        raise BundleError(
            f"{bundle} says that it is {manifest.category}/{manifest.version}: it was moved or renamed"
        )
    return manifest


def verify(bundle: Path) -> Manifest:
    """Read a manifest and check that the bundle holds exactly the files it lists, unchanged.

    Raises:
        BundleError: a file is missing, extra, changed, or a link.
    """
    manifest = read_manifest(bundle)
    present = set()
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle).as_posix()
        if path.is_symlink():
            raise BundleError(f"{bundle} holds a link, {name}; a bundle has only plain files")
        if not path.is_dir() and name != MANIFEST:
            present.add(name)
    if present != manifest.files.keys():
        odd = sorted(present ^ manifest.files.keys())
        raise BundleError(f"{bundle} does not hold the files that its manifest lists: {odd}")
    strangers = {golden.file for golden in manifest.golden} - manifest.files.keys()
    if strangers:
        raise BundleError(f"{bundle} names golden pictures that it does not hold: {sorted(strangers)}")
    for name, sha256 in manifest.files.items():
        if hashlib.sha256((bundle / name).read_bytes()).hexdigest() != sha256:
            raise BundleError(f"{bundle / name} was changed: its sha256 is not the manifest's")
    return manifest


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
    check_category(manifest.category)
    if not _is_version(manifest.version):
        raise BundleError(
            f"{manifest.version!r} cannot be a version: up to 64 letters, digits, '.', '_' and '-', starting "
            f"with a letter or a digit, and not {ACTIVE!r}"
        )
    target = models / manifest.category / manifest.version
    if target.exists():
        raise BundleError(f"{target} exists already; versions are never overwritten")
    for name in files:
        if not _FILE.fullmatch(name) or name in (MANIFEST, FLOW):
            raise BundleError(f"{name!r} cannot be the name of a file in a bundle")
    contents = {FLOW: save(dict(tensors)), **files}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = manifest.model_copy(update={"files": hashes})
    with _temporary_directory(target.parent) as temporary:
        for name, data in {
            **contents,
            MANIFEST: manifest.model_dump_json(indent=1).encode(),
        }.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        temporary.chmod(0o755)
        temporary.rename(target)
    return target


def _is_category(name: str) -> bool:
    return name != BACKBONES and _CATEGORY.fullmatch(name) is not None


def _is_version(name: str) -> bool:
    return name != ACTIVE and _VERSION.fullmatch(name) is not None


@contextmanager
def _temporary_directory(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    # The leading dot keeps it out of every listing until it is renamed.
    temporary = Path(tempfile.mkdtemp(dir=parent, prefix=".", suffix=".part"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
