"""Models that several servers share, with a copy on each.

The table `model_files` has what may change, and says which versions there are: `active`, `settings.json`,
`calibrations/<version>/<file>` and `<version>/manifest.json` of each category. Each server writes these files
into its models folder, in the order of their numbers, so that everything else reads a folder as if it were
its own. The other files of a version are in the store, see `SharedBundles`.

A change goes to the table first. If the database is lost, the last known state serves.
"""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import select

from app.database import locks
from app.database.engine import Database, DatabaseError, DatabaseUnavailable
from app.database.tables import identity
from app.errors.problems import Problem
from app.registry import model_rows
from app.registry.category_settings import SETTINGS
from app.registry.model_cache import ModelKey
from app.registry.model_files import ModelFiles
from app.registry.model_rows import SmallFile
from app.registry.shared_bundles import SharedBundles
from flows.fastflow.bundle import models_folder
from flows.fastflow.bundle.bundle import MANIFEST, BundleError, read_manifest
from flows.fastflow.bundle.models_folder import (
    ACTIVE,
    BACKBONES,
    CALIBRATIONS,
    COPY,
    ModelConflictError,
    Write,
)
from flows.fastflow.files.atomic_files import link_or_copy, remove_abandoned, remove_directory, replace_file
from flows.fastflow.manifest import Manifest

logger = logging.getLogger("flowgauge.models")


class _Mark(BaseModel):
    """Content of the file that marks a copy: whose, and the number of the last row it has."""

    history: str
    number: int = 0


class SharedModels(ModelFiles):
    """A models folder that is this server's copy of shared models.

    Args:
        models: the folder.
        database: PostgreSQL.
        bundles: the large files.
    """

    def __init__(self, models: Path, database: Database, bundles: SharedBundles) -> None:
        super().__init__(models)
        self._on_change: Callable[[str], object] = lambda _: None
        self._database = database
        self._bundles = bundles
        self._mark = _Mark(history="")
        self._applying = threading.RLock()  # rows are written to files in the order of their numbers

    def open(self, in_use: Callable[[], set[ModelKey]], on_change: Callable[[str], object]) -> None:
        """Bring the copy up to date. A folder of versions is shared if there are no shared models.

        Raises:
            DatabaseError: the folder has other versions, or is the copy of another installation.
        """
        with self._database.read() as connection:
            history = connection.scalar(select(identity.c.id)) or ""
            newest = model_rows.last_number(connection)
        mark = self.models / COPY
        own = list(self._small_files())
        self._mark = _Mark.model_validate_json(mark.read_bytes()) if mark.exists() else _Mark(history=history)
        if self._mark.history != history or (newest and own and not mark.exists()):
            raise DatabaseError(
                f"{self.models} has versions of its own, or is a copy of the models of another database: "
                "name an empty folder with FLOWGAUGE_MODELS, and upload what you need to a server"
            )
        if own and not newest:
            self._share(own)
        elif self._mark.number > newest:  # an older state of the database was restored
            for path in own:
                self._write_file(SmallFile(*self._key(path), None))
            self._mark.number = 0
        self._write_mark()
        for folder in (self.models, *self.models.glob("*/")):
            remove_abandoned(folder)
        self._bundles.in_use = in_use
        self.refresh()
        self._on_change = on_change

    def refresh(self) -> None:
        """Write the rows that have changed since the last call to the copy.

        Raises:
            DatabaseUnavailable: the database does not answer.
            OSError: the disk is full.
        """
        changed: set[str] = set()
        with self._applying, self._database.read() as connection:
            try:
                for number, file in model_rows.read_after(connection, self._mark.number):
                    self._write_file(file)
                    self._mark.number = number
                    changed.add(file.category)
            finally:
                if changed:
                    self._write_mark()
        for category in changed:
            self._on_change(category)

    @contextmanager
    def changing(self, category: str) -> Iterator[Write]:
        """Lock a category on all servers and bring it up to date; make all changes at the end.

        Raises:
            DatabaseUnavailable: the database does not answer, or the category is locked for too long.
        """
        changes: list[tuple[str, bytes | None]] = []
        folder = self.models / category

        def write(path: Path, data: bytes | None) -> None:
            changes.append((path.relative_to(folder).as_posix(), data))

        with self._database.write() as connection:
            locks.take(connection, locks.MODELS, category)
            self.refresh()
            yield write
            made: list[SmallFile] = []
            gone: list[SmallFile] = []
            for name, data in changes:
                if data is not None:
                    made.append(SmallFile(category, name, data))
                else:
                    gone += model_rows.find_below(connection, category, name)
            made += [file._replace(data=None) for file in gone]
            model_rows.store(connection, made)
        # As for other servers' changes, in the order of the numbers: a newer one may be here already.
        self.refresh()
        for file in gone:
            if file.data is not None and file.name.endswith(MANIFEST):
                self._remove_bundle(category, file.name, file.data)

    def publish(self, folder: Path, manifest: Manifest) -> None:
        """Publish a complete version: its large files, then its row.

        Raises:
            ModelConflictError: the version exists.
            StoreUnavailable, DatabaseUnavailable: nothing was published; it can be repeated.
        """
        target = self.models / manifest.category / manifest.version
        data = (folder / MANIFEST).read_bytes()
        self._require_free(target)
        self._bundles.upload(folder, manifest)
        try:
            with self.changing(manifest.category) as write:
                self._require_free(target)
                # Nothing is left to upload, unless somebody has just deleted the same version.
                self._bundles.upload(folder, manifest)
                write(target / MANIFEST, data)
        except ModelConflictError:
            self._remove_bundle(manifest.category, f"{manifest.version}/{MANIFEST}", data)
            raise
        self._bundles.keep(folder, manifest)

    def fetch(self, folder: Path) -> None:
        try:
            self._bundles.fetch(folder)
        except OSError as error:
            logger.warning("cannot fetch %s: %s", folder, error)
            raise Problem(
                "model-loading",
                "A file of the version cannot be fetched from the store now. Try again later.",
            ) from error

    def lend(self, folder: Path, category: str, versions: Collection[str]) -> Path:
        """Make a models folder of links for a command: manifests, and all files of some versions."""
        for version in versions:
            self._bundles.fetch(self.models / category / version)
        if not versions:
            self._bundles.fetch_backbones()
        own = self.models / category
        for source in self._small_files(category):
            target = _make_place(source, self.models, folder)
            with suppress(FileNotFoundError):  # deleted meanwhile
                shutil.copyfile(source, target)
                os.utime(target, (0, 0))  # so `take` knows what the command has written
        files = [path for version in versions for path in (own / version).rglob("*") if path.is_file()]
        for source in (*files, *(self.models / BACKBONES).glob("[!.]*")):
            target = _make_place(source, self.models, folder)
            if source.name != MANIFEST and not target.exists():
                link_or_copy(source, target)
        return folder.absolute()

    def take(self, folder: Path, category: str) -> None:
        """Publish the versions and calibrations that a command has made; see `lend`."""
        for path in (folder / BACKBONES).glob("[!.]*"):
            target = _make_place(path, folder, self.models)
            if not target.exists():
                link_or_copy(path, target)
        for version in models_folder.versions(folder, category):
            if not (self.models / category / version / MANIFEST).is_file():
                made = folder / category / version
                self.publish(made, read_manifest(made))
        calibrations = (folder / category / CALIBRATIONS).glob("*/*.json")
        if written := [path for path in calibrations if path.stat().st_mtime]:
            with self.changing(category) as write:
                for path in written:
                    models_folder.resolve(self.models, category, path.parent.name)
                    write(self.models / path.relative_to(folder), path.read_bytes())

    def _share(self, own: Sequence[Path]) -> None:
        """Make the files of this folder the shared models.

        Raises:
            DatabaseError: a version is damaged, or another server was faster.
            DatabaseUnavailable: the store does not answer.
        """
        try:
            for path in own:
                if path.name == MANIFEST:
                    self._bundles.upload(path.parent, read_manifest(path.parent))
        except BundleError as error:
            raise DatabaseError(
                f"the models cannot be shared, delete the damaged version: {error}"
            ) from error
        except OSError as error:
            raise DatabaseUnavailable(f"the models cannot be shared: {error}") from error
        with self._database.write() as connection:
            locks.take(connection, locks.MODELS)
            if model_rows.last_number(connection):
                raise DatabaseError("another server has shared its models meanwhile: start again")
            self._write_mark()  # before the commit: afterwards this is no folder with versions of its own
            model_rows.store(connection, [SmallFile(*self._key(path), path.read_bytes()) for path in own])
        logger.warning("the versions of %s are now the shared models", self.models)

    def _write_file(self, file: SmallFile) -> None:
        path = self.models / file.category / file.name
        is_bundle = path.name == MANIFEST
        known = path.read_bytes() if path.is_file() else None
        if known == file.data:
            return
        if is_bundle and path.parent.is_dir():  # also that of another bundle with the same name
            remove_directory(path.parent)
        if file.data is not None:
            # A version's folder may hold no other file, not even after a kill.
            replace_file(path, file.data, sync=True, via=self.models)
        elif not is_bundle:
            path.unlink(missing_ok=True)
            if path.parent.parent.name == CALIBRATIONS:
                with suppress(OSError):  # it has others, or is gone
                    path.parent.rmdir()

    def _write_mark(self) -> None:
        replace_file(self.models / COPY, self._mark.model_dump_json().encode(), sync=True)

    def _small_files(self, category: str | None = None) -> Iterator[Path]:
        for folder in self.models.glob(f"{category or '*'}/"):
            if models_folder.is_category(folder.name):
                for name in (ACTIVE, SETTINGS, f"{CALIBRATIONS}/[!.]*/*.json", f"[!.]*/{MANIFEST}"):
                    yield from folder.glob(name)

    def _key(self, path: Path) -> tuple[str, str]:
        """Return the category and the name of a small file."""
        category, _, name = path.relative_to(self.models).as_posix().partition("/")
        return category, name

    def _require_free(self, version: Path) -> None:
        if (version / MANIFEST).is_file():
            raise ModelConflictError(f"{version} already exists; versions are never overwritten")

    def _remove_bundle(self, category: str, name: str, manifest: bytes) -> None:
        """Remove a bundle from the store, unless it was published again."""
        try:
            with self._database.write() as connection:
                locks.take(connection, locks.MODELS, category)
                if model_rows.read_data(connection, category, name) != manifest:
                    self._bundles.remove(category, name.partition("/")[0], manifest)
        except (OSError, DatabaseError):
            logger.exception("files of %s/%s, which is no version, stay in the store", category, name)


def _make_place(source: Path, root: Path, other: Path) -> Path:
    """Return a file's path in another folder, and make its parent."""
    target = other / source.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
