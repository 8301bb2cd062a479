"""The files of a models folder, and how a service changes them.

`SharedModels` does the same for a folder that is a copy of models that several servers share.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path

from app.registry.model_cache import ModelKey
from flows.fastflow.bundle import models_folder, publication
from flows.fastflow.bundle.models_folder import Write
from flows.fastflow.manifest import Manifest


class ModelFiles:
    """A models folder that belongs to this server. Thread-safe."""

    def __init__(self, models: Path) -> None:
        self.models = models

    def open(self, in_use: Callable[[], set[ModelKey]], on_change: Callable[[str], object]) -> None:
        """Begin to follow other servers.

        Args:
            in_use: returns the versions in memory, whose files are kept.
            on_change: called with a category that another server has changed, in any thread.

        Raises:
            DatabaseError: the folder does not fit the database.
        """

    def refresh(self) -> None:
        """Take over what other servers have changed.

        Raises:
            DatabaseUnavailable: the database does not answer.
        """

    def changing(self, category: str) -> AbstractContextManager[Write]:
        """Lock a category and yield the function that replaces or deletes its files.

        Raises:
            ModelConflictError: another process holds the lock for half a minute.
        """
        return models_folder.lock_category(self.models, category)

    def activate(self, category: str, version: str) -> str | None:
        """Make a version the active one, see `models_folder.activate`."""
        return models_folder.activate(self.models, category, version, self.changing)

    def delete(self, category: str, version: str) -> None:
        """Delete a version that is not active, see `models_folder.delete`."""
        models_folder.delete(self.models, category, version, self.changing)

    def publish(self, folder: Path, manifest: Manifest) -> None:
        """Publish a complete version from a folder on the same disk.

        Raises:
            ModelConflictError: the version exists.
        """
        publication.move_into_place(folder, self.models, manifest)

    def fetch(self, folder: Path) -> None:
        """Fetch the files of a version that are not in its folder, before they are read.

        Raises:
            Problem: model-loading if they cannot be fetched now.
        """

    def lend(self, folder: Path, category: str, versions: Collection[str]) -> Path:
        """Return a models folder for a command that reads versions of a category and may add others.

        Args:
            folder: a place for one, if it is not this one; kept until the command's result is used.

        Raises:
            Problem: as for `fetch`.
        """
        del folder, category, versions
        return self.models.absolute()

    def take(self, folder: Path, category: str) -> None:
        """Publish what a command has added to the folder that was lent at a place.

        Raises:
            ModelConflictError: see `changing`.
        """
