"""Publication of versions: written under a temporary name, then renamed into the models folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flows.fastflow.bundle.bundle import BundleError, write
from flows.fastflow.bundle.models_folder import (
    ACTIVE,
    CALIBRATIONS,
    ModelConflictError,
    is_version,
    require_category,
    require_own,
)
from flows.fastflow.files.atomic_files import remove_abandoned, temporary_directory
from flows.fastflow.manifest import Manifest

if TYPE_CHECKING:
    from torch import Tensor


def publish(
    models: Path, manifest: Manifest, tensors: "Mapping[str, Tensor]", files: Mapping[str, bytes]
) -> Path:
    """Write a bundle under a temporary name and rename it into place, see `bundle.write`.

    Raises:
        BundleError: a name is not allowed.
        ModelConflictError: the version exists.
    """
    _require_free(models, manifest)
    with temporary_directory(models / manifest.category) as temporary:
        write(temporary, manifest, tensors, files)
        return move_into_place(temporary, models, manifest)


def move_into_place(staged: Path, models: Path, manifest: Manifest) -> Path:
    """Rename a complete bundle, on the same disk, to the category and version of its manifest.

    Raises:
        BundleError: a name is not allowed.
        ModelConflictError: the version exists.
    """
    require_own(models)
    target = _require_free(models, manifest)
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in (models, target.parent):  # killed uploads and runs leave theirs in either
        remove_abandoned(folder)
    staged.chmod(0o755)
    try:
        staged.rename(target)
    except OSError:
        _require_free(models, manifest)  # another process published the version first
        raise
    return target


def _require_free(models: Path, manifest: Manifest) -> Path:
    require_category(manifest.category)
    if not is_version(manifest.version):
        raise BundleError(
            f"{manifest.version!r} is not a valid version: use up to 64 letters, digits, '.', '_' and '-', "
            f"starting with a letter or a digit, not ending in .json and not {ACTIVE!r} or {CALIBRATIONS!r}"
        )
    target = models / manifest.category / manifest.version
    if target.exists() or target.is_symlink():
        raise ModelConflictError(f"{target} already exists; versions are never overwritten")
    return target
