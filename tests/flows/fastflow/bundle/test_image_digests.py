"""Which images a bundle was fitted to: told again exactly, and never taken from a file that was changed."""

import hashlib
from pathlib import Path

import pytest

from flows.fastflow.bundle.bundle import BundleError, read_manifest
from flows.fastflow.bundle.image_digests import FIT_IMAGES, format_digests, read_digests
from flows.fastflow.bundle.publication import publish
from tests.flows.fastflow.manifests import FILES, TENSORS, manifest, rehash

SEEN = [hashlib.sha256(bytes([i])).hexdigest() for i in range(20)]
OTHERS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(20, 40)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path, manifest(), TENSORS, {**FILES, FIT_IMAGES: format_digests(SEEN)})


def test_bundle_knows_the_images_it_was_fitted_to(folder: Path) -> None:
    fitted = read_digests(folder, read_manifest(folder))
    assert fitted is not None
    assert len(fitted) == len(SEEN)
    assert all(sha256 in fitted for sha256 in SEEN)
    assert not any(sha256 in fitted for sha256 in OTHERS)


def test_missing_digests_differ_from_empty_digests(tmp_path: Path) -> None:
    silent = publish(tmp_path, manifest("nut"), TENSORS, FILES)
    assert read_digests(silent, read_manifest(silent)) is None
    empty = publish(tmp_path, manifest("bolt"), TENSORS, {**FILES, FIT_IMAGES: format_digests([])})
    found = read_digests(empty, read_manifest(empty))
    assert found is not None
    assert len(found) == 0


@pytest.mark.parametrize("content", [b"abc\n", b"\xff" * 40])
def test_file_that_is_no_list_is_rejected(folder: Path, content: bytes) -> None:
    (folder / FIT_IMAGES).write_bytes(content)
    rehash(folder)
    with pytest.raises(BundleError, match="not a list of digests"):
        read_digests(folder, read_manifest(folder))
