"""The command of each kind of job, and the images that it reads."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from app.errors.problems import Problem
from app.history.history import History
from app.jobs.job import TAUGHT, JobRecord
from app.jobs.job_folders import JobFolders
from app.products.folders import make_folder
from app.products.products import Products
from app.registry.catalogue import find_version_folder
from app.schemas.jobs import JobKind
from app.settings import Settings
from flows.fastflow.backbones.presets import PRESETS
from flows.fastflow.bundle.bundle import BundleError, read_manifest
from flows.fastflow.files.atomic_files import temporary_directory
from flows.fastflow.learning.reviewed import read_known_images

_OF_A_VERSION: Final = ("evaluate", "calibrate")
_COMMANDS: Final[Mapping[JobKind, tuple[str, ...]]] = {
    "starter": ("train", "--starter", "--no-activate"),
    "train": ("train", "--resume", "--no-activate"),
    "evaluate": ("evaluate",),
    "calibrate": ("calibrate",),
    "check": ("data", "check"),
}


class Commands:
    """Commands of jobs.

    Args:
        settings: of the service.
        history: of the service.
        products: of the service.
        folders: of the jobs.
    """

    def __init__(self, settings: Settings, history: History, products: Products, folders: JobFolders) -> None:
        self._settings = settings
        self._history = history
        self._products = products
        self._folders = folders

    def require_possible(self, kind: JobKind, product: str, settings: Mapping[str, Any]) -> None:
        """Refuse a job that cannot succeed.

        Raises:
            Problem: unknown-product or unknown-model; invalid-request for an unknown preset; conflict if
                there are too few images to learn from.
        """
        self._products.get(product)
        if kind in _OF_A_VERSION:
            find_version_folder(self._settings.models, product, settings.get("version"))
        if (preset := settings.get("preset")) is not None and preset not in PRESETS:
            known = ", ".join(PRESETS)
            raise Problem("invalid-request", f"settings.preset: {preset!r} is unknown; use one of {known}.")

    def read_dataset(self, product: str) -> tuple[int, int]:
        """Return the revision of a product's images and the number of good ones.

        Raises:
            Problem: unknown-product.
        """
        row = self._products.get(product)
        return row.data_revision, self._products.counts([product])[product].good

    def prepare(self, job: JobRecord) -> list[str]:
        """Write the folder of images, unless an earlier start has, and return the command.

        Raises:
            Problem: the product or the version is gone, or the version is damaged; or as `require_possible`.
        """
        data, settings = self._folders.data(job), self._settings
        options: dict[str, Any] = {**job.settings, "category": job.product, "progress": "json"}
        options["threads"] = job.threads
        folder = None
        if job.kind in _OF_A_VERSION:
            folder = find_version_folder(settings.models, job.product, options.get("version"))
            options["version"] = folder.name
        if not data.is_dir():
            with temporary_directory(data.parent) as temporary:
                self._write_images(job, folder, temporary)
                temporary.rename(data)
        if job.kind != "check":
            options |= {"models": settings.models, "device": settings.device}
        if job.kind == "calibrate":
            options |= {"images": data / job.product / "test/good", "reason": f"job {job.id}"}
            options["precision"] = settings.precision
        else:
            options["data"] = data
        if job.kind in TAUGHT:
            options["runs"] = self._folders.runs
        if job.kind == "evaluate":
            options |= {"out": self._folders.report(job), "precision": settings.precision}
        # One argument each: no value can become an option.
        arguments = [
            f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None
        ]
        return [sys.executable, "-m", "flowgauge", *_COMMANDS[job.kind], *arguments]

    def measure(self, job: JobRecord, version: str) -> list[str]:
        """Return the command that measures a version on the test images of a job."""
        evaluation = replace(job, kind="evaluate", settings={"version": version})
        return self.prepare(evaluation)

    def environment(self) -> dict[str, str]:
        """Return the environment of a command: the audit log of `calibrate` is the server's."""
        return {
            **os.environ,
            "FLOWGAUGE_HISTORY": str(self._settings.history),
            "FLOWGAUGE_DATABASE": self._settings.database_url,
        }

    def redact(self, job: JobRecord, text: str) -> str:
        """Remove the server's folders from a text."""
        data, settings = self._folders.data(job), self._settings
        for folder in (data, data.parent, self._folders.runs, settings.history, settings.models):
            text = text.replace(f"{folder}/", "").replace(str(folder), folder.name)
        return text

    def _write_images(self, job: JobRecord, folder: Path | None, parent: Path) -> None:
        """Write the images of a job, which reads the version in a folder, if any."""
        if folder is None:
            make_folder(self._products, job.product, parent)
        else:
            try:
                fitted, _ = read_known_images(folder, read_manifest(folder))
            except BundleError as error:
                raise _damaged() from error
            make_folder(self._products, job.product, parent, lambda sha256: sha256 not in fitted)


def _damaged() -> Problem:
    return Problem("rejected-bundle", "The version is damaged or incomplete. Publish it again.")
