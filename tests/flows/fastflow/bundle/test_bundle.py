"""Bundles: all files are there, as the manifest says."""

import hashlib
from pathlib import Path

import pytest
from safetensors.torch import load_file

from flows.fastflow.bundle import bundle, publication
from flows.fastflow.bundle.bundle import BundleError
from tests.flows.fastflow.manifests import FILES, TENSORS, made, manifest

NO_FILES = ["", ".", ".hidden", "golden/.x", "a//b", "a/", "a\\b", "a b", "a\n", "manifest.json"]
NO_FILES += ["../x", "/etc/passwd", "golden/../../x", "flow.safetensors"]


def test_everything_is_there_and_verified(tmp_path: Path) -> None:
    path = made(tmp_path)
    assert path == tmp_path / "screw" / "20260101T000000-abcdef"
    contents = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert contents == {"manifest.json", "flow.safetensors", *FILES}
    found = bundle.verify(path)
    assert found.files == {
        name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in contents - {"manifest.json"}
    }
    assert found.model_copy(update={"files": {}}) == manifest()
    assert (path / "golden/0.png").read_bytes() == FILES["golden/0.png"]
    assert load_file(path / "flow.safetensors")["weight"].equal(TENSORS["weight"])


@pytest.mark.parametrize("name", NO_FILES)
def test_file_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="cannot be the name of a file in a bundle"):
        bundle.write(tmp_path / "whole", manifest(), TENSORS, {"fine": b"", name: b""})
    with pytest.raises(BundleError, match="cannot be the name of a file in a bundle"):
        publication.publish(tmp_path, manifest(), TENSORS, {"fine": b"", name: b""})
    assert list(tmp_path.rglob("*")) == [tmp_path / "screw"]


def test_manifest_that_could_not_be_read_again_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_MANIFEST", 1000)
    with pytest.raises(
        BundleError, match=r"would have [\d,]+ bytes, the limit is 1,000.*3 calibration images"
    ):
        publication.publish(tmp_path, manifest(), TENSORS, FILES)
    assert list(tmp_path.rglob("*")) == [tmp_path / "screw"]
