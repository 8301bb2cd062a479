"""The command of each kind of job, and the images that it reads."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from app.database import clock
from app.errors.problems import Problem
from app.history.history import History
from app.jobs.job import TAUGHT, JobRecord
from app.jobs.job_folders import JobFolders
from app.learning.reviews import LearningSet, find_learning_set
from app.products.folders import make_folder
from app.products.products import Products
from app.registry.catalogue import find_version_folder
from app.registry.model_files import ModelFiles
from app.schemas.jobs import JobKind
from app.settings import Settings
from flows.fastflow.backbones.presets import PRESETS
from flows.fastflow.bundle.bundle import BundleError, read_manifest
from flows.fastflow.bundle.image_digests import ImageDigests
from flows.fastflow.files.atomic_files import temporary_directory
from flows.fastflow.learning.reviewed import read_known_images

_OF_A_VERSION: Final = ("evaluate", "calibrate", "learn", "compare")
_COMMANDS: Final[Mapping[JobKind, tuple[str, ...]]] = {
    "starter": ("train", "--starter", "--no-activate"),
    "train": ("train", "--resume", "--no-activate"),
    "evaluate": ("evaluate",),
    "calibrate": ("calibrate",),
    "learn": ("learn",),
    "compare": ("compare",),
    "check": ("data", "check"),
}


class Commands:
    """Commands of jobs.

    Args:
        settings: of the service.
        history: of the service.
        products: of the service.
        folders: of the jobs.
        files: the models folder of the service.
    """

    def __init__(
        self,
        settings: Settings,
        history: History,
        products: Products,
        folders: JobFolders,
        files: ModelFiles,
    ) -> None:
        self._settings = settings
        self._history = history
        self._products = products
        self._folders = folders
        self._files = files

    def complete_settings(self, kind: JobKind, product: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse a job that cannot succeed; return its settings with the version that it is for.

        Raises:
            Problem: unknown-product or unknown-model; invalid-request for an unknown preset; conflict if
                nothing can be learned; rejected-bundle if the version is damaged.
        """
        complete = dict(settings)
        if kind in _OF_A_VERSION:
            folder = find_version_folder(self._settings.models, product, settings.get("version"))
            complete["version"] = folder.name
        if kind == "compare":
            against = find_version_folder(self._settings.models, product, settings.get("against")).name
            if against == complete["version"]:
                raise Problem("conflict", f"The version {against} would be compared with itself.")
            complete["against"] = against
        if kind == "learn":
            self._find_learning_set(product, complete).require_enough()
        if (preset := settings.get("preset")) is not None and preset not in PRESETS:
            known = ", ".join(PRESETS)
            raise Problem("invalid-request", f"settings.preset: {preset!r} is unknown; use one of {known}.")
        return complete

    def read_dataset(self, kind: JobKind, product: str) -> tuple[int | None, int | None]:
        """Return the revision of a product's images and the number of good ones; None if they are not read.

        Raises:
            Problem: unknown-product.
        """
        if kind == "learn":
            return None, None
        row = self._products.get(product)
        return row.data_revision, self._products.counts([product])[product].good

    def prepare(self, job: JobRecord) -> list[str]:
        """Write the folder of images, unless an earlier start has, and return the command.

        Raises:
            Problem: the product or the version is gone, or the version is damaged.
        """
        data, settings = self._folders.data(job), self._settings
        options: dict[str, Any] = {**job.settings, "category": job.product, "progress": "json"}
        options["threads"] = job.threads
        if not data.is_dir():
            with temporary_directory(data.parent) as temporary:
                self._write_images(job, temporary)
                temporary.rename(data)
        if job.kind != "check":
            options |= {"models": self._lend_models(job, options), "device": settings.device}
        if job.kind == "calibrate":
            options |= {"images": data / job.product / "test/good", "reason": f"job {job.id}"}
        elif job.kind == "learn":
            options |= {name: data / name for name in ("defects", "good") if (data / name).is_dir()}
            options.pop("since", None)
        else:
            options["data"] = data
        if job.kind in TAUGHT:
            options["runs"] = self._folders.runs(job)
            if settings.precision != "float32":  # the service serves no version that lacks its precision
                options["config"] = data.with_name("run.yaml")
                engines = ["float32", settings.precision]
                options["config"].write_text(json.dumps({"calibration": {"engines": engines}}))
        if job.kind == "evaluate":
            options["out"] = self._folders.report(job)
        if job.kind in ("calibrate", "evaluate", "compare"):
            options["precision"] = settings.precision
        return _command(job.kind, options)

    def compare(self, job: JobRecord, version: str, against: str) -> list[str] | None:
        """Write the images that neither of two versions knows, and return the command that compares them.

        Returns:
            The command; None without such images.

        Raises:
            Problem: the product or a version is gone, or a version is damaged.
        """
        known = [images for name in (against, version) for images in self._read_known(job.product, name)]
        folder, settings = self._folders.compared(job), self._settings
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make_folder(
            self._products, job.product, folder, lambda sha256: not any(sha256 in images for images in known)
        )
        shutil.rmtree(folder / job.product / "train")
        if not any((folder / job.product).glob("test/*/*")):
            return None
        options = {"data": folder, "category": job.product, "version": version, "against": against}
        options["models"] = self._lend_models(job, options)
        options |= {"precision": settings.precision, "device": settings.device, "threads": job.threads}
        options["progress"] = "json"
        return _command("compare", options)

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
        for folder in (data, self._folders.runs(job), data.parent, settings.history, settings.models):
            path = str(folder.absolute())  # a relative one may be "."
            text = text.replace(f"{path}/", "").replace(path, folder.name)
        return text

    def _write_images(self, job: JobRecord, parent: Path) -> None:
        """Write the images of a job."""
        if job.kind == "learn":
            self._find_learning_set(job.product, job.settings).write(self._history.files, parent)
        elif job.kind in _OF_A_VERSION:
            versions = [job.settings[name] for name in ("version", "against") if name in job.settings]
            fitted = [self._read_known(job.product, version)[0] for version in versions]
            make_folder(
                self._products,
                job.product,
                parent,
                lambda sha256: not any(sha256 in images for images in fitted),
            )
            if job.kind == "compare" and not (parent / job.product / "test").is_dir():
                raise Problem(
                    "conflict", "Both versions know all images: mark defects, or add good images to compare."
                )
        else:
            make_folder(self._products, job.product, parent)

    def _lend_models(self, job: JobRecord, options: Mapping[str, Any]) -> Path:
        versions = [options[name] for name in ("version", "against") if options.get(name) is not None]
        return self._files.lend(self._folders.models(job), job.product, versions)

    def _read_known(self, product: str, version: str) -> tuple[ImageDigests, ImageDigests]:
        """Return the images that a version was fitted to, and those of its calibration."""
        folder = find_version_folder(self._settings.models, product, version)
        self._files.fetch(folder)
        try:
            return read_known_images(folder, read_manifest(folder))
        except BundleError as error:
            raise _damaged() from error

    def _find_learning_set(self, category: str, settings: Mapping[str, Any]) -> LearningSet:
        folder = find_version_folder(self._settings.models, category, settings["version"])
        self._files.fetch(folder)
        since = settings.get("since")
        since_ms = 0 if since is None else clock.from_datetime(datetime.fromisoformat(since))
        try:
            manifest = read_manifest(folder)
        except BundleError as error:
            raise _damaged() from error
        return find_learning_set(self._history, self._settings.models, manifest, since_ms)


def _damaged() -> Problem:
    return Problem("rejected-bundle", "The version is damaged or incomplete. Publish it again.")


def _command(kind: JobKind, options: Mapping[str, Any]) -> list[str]:
    # One argument each: no value can become an option.
    arguments = [
        f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None
    ]
    return [sys.executable, "-m", "flowgauge", *_COMMANDS[kind], *arguments]
