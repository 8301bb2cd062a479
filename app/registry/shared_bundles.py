"""The large files of versions that servers share: in a store, with copies on this server.

    <category>/<version>/<digest>/<file>    a bundle; <digest> is 16 digits of its manifest's SHA-256
    backbones/<file>

Two publishers of one name never mix their files, and an upload that was cut off can be repeated. Which bundle
is the version, a row of the database says.
"""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from app.errors.problems import Problem
from app.registry.free_disk import require_room_for_upload
from app.registry.model_cache import ModelKey
from app.storage.store import Store
from flows.fastflow.backbones.weights import NAMED, find_kept_files, load_kept_weights
from flows.fastflow.bundle.bundle import (
    MANIFEST,
    MAX_BYTES,
    BundleError,
    is_valid_file_name,
    read_manifest,
    read_verified,
)
from flows.fastflow.bundle.models_folder import BACKBONES, is_category, is_version
from flows.fastflow.files.atomic_files import link_or_copy, replacing
from flows.fastflow.files.plain_files import FileError, sha256_of
from flows.fastflow.manifest import Backbone, Manifest

logger = logging.getLogger("flowgauge.models")

# What was used this short a time ago is kept: a request or a job's command reads it now.
KEPT_SECONDS: Final = 120.0


class _Copy(NamedTuple):
    """Files that are deleted together: of a version, or of a backbone.

    Attributes:
        used: time of the last use in seconds since 1970.
    """

    used: float
    size: int
    path: Path
    files: list[Path]


class SharedBundles:
    """The bundles of a store, and a bounded copy of them in a models folder. Thread-safe.

    Args:
        models: the models folder; it has the manifests.
        max_bytes: of the copied files; beyond, those of the least recently used versions are deleted.

    Attributes:
        in_use: returns the versions that are in memory or loading, whose files are kept.
    """

    def __init__(self, models: Path, store: Store, max_bytes: int) -> None:
        self.in_use: Callable[[], set[ModelKey]] = set
        self._models = models
        self._store = store
        self._max_bytes = max_bytes
        self._locks: dict[Path, threading.Lock] = {}
        self._dropping = threading.Lock()
        self._checked: set[str] = set()  # backbones whose copies were verified

    def upload(self, folder: Path, manifest: Manifest) -> None:
        """Upload what the store lacks of a bundle, the manifest last, and of its backbone.

        Raises:
            BundleError: a file is damaged.
            StoreUnavailable: the store does not answer.
        """
        data = (folder / MANIFEST).read_bytes()
        place = _place(manifest.category, manifest.version, data)
        present = set(self._store.list(place))
        for name in manifest.files:
            if f"{place}/{name}" not in present:
                self._store.write(f"{place}/{name}", read_verified(folder, manifest, name, MAX_BYTES))
        backbone = manifest.backbone
        for path in find_kept_files(backbone.name, self._models / BACKBONES, backbone.weights_sha256):
            mark = path.with_name(path.name + NAMED)
            for file in (mark, path) if mark.exists() else (path,):
                if not self._store.exists(f"{BACKBONES}/{file.name}"):
                    self._store.write(f"{BACKBONES}/{file.name}", file.read_bytes())
        with suppress(FileExistsError):
            self._store.create(f"{place}/{MANIFEST}", data)

    def remove(self, category: str, version: str, manifest: bytes) -> None:
        """Remove a bundle from the store. Nobody may publish it meanwhile."""
        place = _place(category, version, manifest)
        self._store.delete(f"{place}/{MANIFEST}")
        for name in list(self._store.list(place)):
            self._store.delete(name)

    def keep(self, folder: Path, manifest: Manifest) -> None:
        """Keep the files of a published bundle as this server's copy."""
        target = self._models / manifest.category / manifest.version
        with self._lock(target):
            for name in manifest.files:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                if not (target / name).exists():
                    link_or_copy(folder / name, target / name)
        self._drop_unused()

    def fetch(self, folder: Path) -> None:
        """Fetch the files of a version that are missing or damaged in its folder, and its backbone.

        Raises:
            Problem: model-loading if the store has a damaged file.
            OSError: the store does not answer or lacks a file, or the disk is full.
        """
        try:
            manifest, data = read_manifest(folder), (folder / MANIFEST).read_bytes()
        except (BundleError, OSError):
            return  # as in a folder that is not shared: who reads the version says so
        place = _place(manifest.category, manifest.version, data)
        has_fetched = False
        with self._lock(folder):
            for name, sha256 in manifest.files.items():
                is_good = partial(_has_sha256, sha256=sha256)
                has_fetched |= self._fetch_file(f"{place}/{name}", folder / name, is_good)
            os.utime(folder)
        has_fetched |= self._fetch_backbone(manifest.backbone)
        if has_fetched:
            self._drop_unused()

    def fetch_backbones(self) -> None:
        """Fetch all backbones, because a training may need any of them.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        for name in list(self._store.list(BACKBONES)):
            if not (self._models / name).exists():
                with replacing(self._models / name, sync=False) as temporary:
                    temporary.write_bytes(self._store.read(name))

    def _fetch_backbone(self, backbone: Backbone) -> bool:
        file = f"{backbone.name}-{backbone.weights_sha256[:12]}.safetensors"
        path = self._models / BACKBONES / file
        if not is_valid_file_name(file) or "/" in file:  # a manifest may claim any name
            return False

        def is_good(path: Path) -> bool:
            return load_kept_weights(backbone.name, path.parent, backbone.weights_sha256) is not None

        with self._lock(path):
            has_fetched = False
            if not (path.exists() and (file in self._checked or is_good(path))):
                try:
                    names = [name for name in self._store.list(BACKBONES) if Path(name).name.startswith(file)]
                except OSError as error:
                    logger.warning("cannot look for the backbone %s: %s", file, error)
                    return False  # a package may have it
                for name in sorted(names, reverse=True):  # the mark first, if there is one
                    check = is_good if name.endswith(file) else Path.exists
                    has_fetched |= self._fetch_file(name, self._models / name, check)
            if path.exists():  # otherwise the weights come from elsewhere, such as a package
                os.utime(path)
                self._checked.add(file)
            return has_fetched

    def _fetch_file(self, name: str, path: Path, is_good: Callable[[Path], bool]) -> bool:
        """Fetch a file unless there is a good copy; return True if it was fetched."""
        if path.exists() and is_good(path):
            return False
        data = self._store.read(name)
        require_room_for_upload(self._models, len(data))
        # Not in the version's folder, which may hold no other file, not even after a kill.
        with replacing(path, sync=False, via=self._models) as temporary:
            temporary.write_bytes(data)
            if not is_good(temporary):
                logger.error("%s in the store of the models is damaged", name)
                raise Problem("model-loading", f"The file {path.name} of the version is damaged.")
        return True

    def _drop_unused(self) -> None:
        """Delete copies of files, the least recently used first, until the rest has `max_bytes`."""
        with self._dropping:
            copies = sorted(self._copies())
            total = sum(copy.size for copy in copies)
            if total <= self._max_bytes:
                return
            kept = {self._models / category / version for category, version in self.in_use()}
            kept |= {path for folder in kept for path in self._backbones_of(folder)}
            for copy in copies:
                if copy.path in kept or time.time() - copy.used < KEPT_SECONDS or not copy.size:
                    continue
                for path in copy.files:
                    path.unlink(missing_ok=True)
                total -= copy.size
                logger.info("deleted the copy of %s: FLOWGAUGE_STORE_CACHE_BYTES is reached", copy.path)
                if total <= self._max_bytes:
                    return

    def _copies(self) -> Iterator[_Copy]:
        for path in (*self._models.glob(f"{BACKBONES}/*.safetensors"), *self._models.glob("*/*/")):
            if not path.is_dir():
                files = [path]
            elif is_category(path.parent.name) and is_version(path.name):
                files = [file for file in path.rglob("*") if file.is_file() and file != path / MANIFEST]
            else:
                continue
            with suppress(FileNotFoundError):  # deleted meanwhile
                size = sum(file.stat().st_size for file in files)
                yield _Copy(path.stat().st_mtime, size, path, files)

    def _backbones_of(self, folder: Path) -> list[Path]:
        try:
            backbone = read_manifest(folder).backbone
        except BundleError:
            return []
        return find_kept_files(backbone.name, self._models / BACKBONES, backbone.weights_sha256)

    def _lock(self, path: Path) -> threading.Lock:
        return self._locks.setdefault(path, threading.Lock())


def _place(category: str, version: str, manifest: bytes) -> str:
    """Return the folder of a bundle in the store."""
    return f"{category}/{version}/{hashlib.sha256(manifest).hexdigest()[:16]}"


def _has_sha256(path: Path, sha256: str) -> bool:
    try:
        return sha256_of(path, MAX_BYTES) == sha256
    except (FileError, OSError):
        return False
