"""Bundle: a trained model as a directory, verified when read and without pickle.

manifest.json       description, sha256 of each other file, thresholds and their calibration scores
flow.safetensors    weights of the flows, statistics of the normalisation
golden/             images with known scores, replayed when the bundle is loaded
report/             results of the training
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_core import from_json

from flows.fastflow.calibration.calibrator import record_threshold
from flows.fastflow.files.plain_files import FileError, file_sizes, read_file, sha256_of
from flows.fastflow.manifest import MAX_FILES, Manifest

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
FLOW = "flow.safetensors"
MAX_BYTES = 4 * 2**30  # of a bundle
MAX_MANIFEST = 64 * 2**20  # enough for 100,000 calibration images in three precisions
_FILE = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)*[A-Za-z0-9][A-Za-z0-9._-]*")


class BundleError(ValueError):
    """A bundle is damaged, of an unsupported version, or contradicts its own manifest."""


def is_valid_file_name(name: str) -> bool:
    """Check a file name, relative to the bundle's directory."""
    return len(name) <= 255 and _FILE.fullmatch(name) is not None


def parse_manifest(data: bytes, origin: str) -> Manifest:
    """Parse the bytes of a manifest; `origin` names them in errors.

    Raises:
        BundleError: the manifest is too large, invalid, or of another schema version.
    """
    if len(data) > MAX_MANIFEST:
        raise BundleError(f"{origin} is larger than {MAX_MANIFEST:,} bytes")
    try:
        document = from_json(data)
    except ValueError as error:
        raise BundleError(f"{origin} is not valid: the document: Invalid JSON: {error}") from error
    try:
        # Errors of model_validate_json would each hold a copy of their input.
        return Manifest.model_validate(document)
    except ValidationError as error:
        raise BundleError(f"{origin} is not valid: {describe_first_error(error)}") from error


def describe_first_error(error: ValidationError) -> str:
    """Describe the position and the kind of the first error of a document."""
    # Without the input, which may be a long document.
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "the document"
    return f"{where}: {first['msg']}"


def read_manifest(bundle: Path) -> Manifest:
    """Read a manifest without checking the other files.

    Raises:
        BundleError: the manifest is missing, invalid, or of another schema version.
    """
    return _parse(bundle, _manifest_bytes(bundle))


def manifest_sha256(bundle: Path, manifest: Manifest) -> str:
    """Compute the sha256 of the file that a manifest was read from.

    Raises:
        BundleError: the file changed meanwhile.
    """
    data = _manifest_bytes(bundle)
    if _parse(bundle, data) != manifest:
        raise BundleError(f"{bundle} was changed while it was read")
    return hashlib.sha256(data).hexdigest()


def verify(bundle: Path) -> Manifest:
    """Read a manifest and check that the bundle holds exactly the files it lists, unchanged.

    Raises:
        BundleError: a file is missing, extra, changed, too large, or not a regular file; or a threshold does
            not follow from the calibration scores.
    """
    manifest = read_manifest(bundle)
    try:
        present = file_sizes(bundle, 2 * MAX_FILES)
    except FileError as error:
        raise BundleError(f"{error}; a bundle has only regular files") from error
    except OSError as error:
        raise BundleError(f"{bundle} cannot be read") from error
    present.pop(MANIFEST, None)
    if present.keys() != manifest.files.keys():
        odd = sorted(present.keys() ^ manifest.files.keys())
        raise BundleError(f"{bundle} does not hold the files that its manifest lists: {odd[:10]}")
    if sum(present.values()) > MAX_BYTES:
        raise BundleError(f"{bundle} has more than {MAX_BYTES:,} bytes")
    missing = {golden.file for golden in manifest.golden} - manifest.files.keys()
    if missing:
        raise BundleError(f"{bundle} names golden images that it does not hold: {sorted(missing)}")
    for name, sha256 in manifest.files.items():
        if _sha256(bundle / name, present[name]) != sha256:
            raise BundleError(f"{bundle / name} was changed: its sha256 is not the manifest's")
    _check_thresholds(bundle, manifest)
    return manifest


def read_verified(bundle: Path, manifest: Manifest, name: str, max_bytes: int) -> bytes:
    """Read a file of a bundle once and verify its sha256.

    Raises:
        BundleError: the file is missing, larger than `max_bytes`, or changed.
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


def write(
    folder: Path, manifest: Manifest, tensors: "Mapping[str, Tensor]", files: Mapping[str, bytes]
) -> None:
    """Write all files of a bundle into an empty directory.

    Args:
        folder: an empty directory.
        manifest: the manifest; `files` is filled in.
        tensors: the flows' weights and the normalisation's statistics.
        files: further files by relative name, such as golden images and the report.

    Raises:
        BundleError: a name is not allowed, or the manifest is too large to be read again.
    """
    # Imported here: commands that only read manifests do not wait for torch.
    import torch
    from safetensors.torch import save

    for name in files:
        if not is_valid_file_name(name) or name in (MANIFEST, FLOW):
            raise BundleError(f"{name!r} cannot be the name of a file in a bundle")
    # Copied: safetensors saves neither channels-last tensors nor two names of one tensor.
    weights = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    contents = {FLOW: save(weights), **files}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    complete = manifest.model_copy(update={"files": hashes})
    contents[MANIFEST] = complete.model_dump_json(indent=1).encode()
    if len(contents[MANIFEST]) > MAX_MANIFEST:
        images = len(complete.calibration.scores)
        raise BundleError(
            f"the manifest would have {len(contents[MANIFEST]):,} bytes, the limit is {MAX_MANIFEST:,}: it "
            f"holds the scores of {images:,} calibration images; calibrate with fewer"
        )
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _manifest_bytes(bundle: Path) -> bytes:
    try:
        return read_file(bundle / MANIFEST, MAX_MANIFEST)
    except FileError as error:
        raise BundleError(
            f"{error}; a bundle has only regular files, and a manifest at most that size"
        ) from error
    except OSError as error:
        raise BundleError(f"{bundle} has no readable {MANIFEST}") from error


def _parse(bundle: Path, data: bytes) -> Manifest:
    manifest = parse_manifest(data, str(bundle / MANIFEST))
    if (manifest.category, manifest.version) != (bundle.parent.name, bundle.name):
        raise BundleError(
            f"{bundle} has the manifest of {manifest.category}/{manifest.version}: it was moved or renamed"
        )
    return manifest


def _sha256(path: Path, size: int) -> str:
    try:
        return sha256_of(path, size)
    except (FileError, OSError) as error:
        raise BundleError(f"{path} was changed while it was read") from error


def _check_thresholds(bundle: Path, manifest: Manifest) -> None:
    """Check that each threshold follows from its calibration scores."""
    for precision, record in manifest.thresholds.items():
        calibration = manifest.calibration_of(precision)
        assert calibration is not None  # noqa: S101  (the manifest has one for each threshold)
        expected = record_threshold(calibration, record.target_fpr)
        if expected != record:
            raise BundleError(
                f"{bundle}: the threshold for {precision} does not follow from its calibration scores, "
                f"which give {expected.model_dump()}"
            )
