"""Every kind of damage to a bundle is refused with the reason."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.fastflow.bundle import (
    BundleError,
    manifest_sha256,
    parse_manifest,
    read_manifest,
    read_verified,
    verify,
)
from tests.flows.fastflow.manifests import edit, made

Change = Callable[[dict[str, Any]], object]

MANIFESTS: dict[str, tuple[Change, str]] = {
    "other schema": (lambda d: d.update(schema_version=2, wings=True), "schema_version: Input should be 1"),
    "unknown field": (lambda d: d.update(wings=True), "wings: Extra inputs are not permitted"),
    "unknown field inside": (lambda d: d["flow"].update(wings=True), "flow.wings: Extra inputs"),
    "missing field": (lambda d: d.pop("calibration"), "calibration: Field required"),
    "other clamp": (lambda d: d["flow"].update(clamp_formula="c*tanh(0.1*a)"), "flow.clamp_formula"),
    "other resize rule": (lambda d: d.update(resize="cubic"), "resize: Input should be 'area-or-linear'"),
    "too many steps": (lambda d: d["flow"].update(steps=10**9), "flow.steps: Input should be less"),
    "giant picture": (lambda d: d.update(input_size=[10**6, 64]), "input_size.0: Input should be less"),
    "no scales": (lambda d: d["backbone"].update(out_indices=[]), "backbone.out_indices: List should have"),
    "even pooling": (lambda d: d["normalisation"].update(pooling=2), "normalisation.pooling: .*must be odd"),
    "hash of another kind": (
        lambda d: d["backbone"].update(weights_sha256="abc"),
        "backbone.weights_sha256: String",
    ),
    "no threshold": (lambda d: d.update(thresholds={}), "thresholds: Dictionary should have at least 1"),
    "unknown precision": (lambda d: d["thresholds"].update(int4={}), "thresholds.int4"),
    "threshold not a number": (
        lambda d: d["thresholds"]["float32"].update(reject=float("nan")),
        "thresholds.float32.reject: Input should be a finite number",
    ),
    "threshold that nothing exceeds": (
        lambda d: d["thresholds"]["float32"].update(reject=float("inf")),
        "thresholds.float32.reject: Input should be a finite number",
    ),
    "calibration not a number": (
        lambda d: d["calibration"].update(scores=[1.0, float("nan")]),
        "calibration.scores.1: Input should be a finite number",
    ),
    "no calibration": (lambda d: d["calibration"].update(scores=[]), "calibration.scores: List should have"),
    "no golden pictures": (lambda d: d.update(golden=[]), "golden: List should have at least 1"),
    "file names without end": (lambda d: d["golden"][0].update(file="a" * 300), "golden.0.file: String"),
    "more golden pictures than anybody needs": (
        lambda d: d.update(golden=d["golden"] * 65),
        "golden: List should have at most 64",
    ),
    "a golden picture that comes twice": (
        lambda d: d.update(golden=d["golden"] * 2),
        "golden: .*two entries name the same file",
    ),
    "more files than anybody needs": (
        lambda d: d.update(files={str(i): "0" * 64 for i in range(257)}),
        "files: Dictionary should have at most 256",
    ),
    "more calibration scores than anybody needs": (
        lambda d: d["calibration"].update(scores=[1.0] * 200_001),
        "calibration.scores: List should have at most 200000",
    ),
    "giant area": (lambda d: d.update(input_size=[4096, 4096]), "input_size: .*more than 4,194,304 pixels"),
    "geometry of another kind": (
        lambda d: d.update(geometry={"fit": "crop"}),
        "geometry.fit: Input should be 'stretch', 'pad' or 'tile'",
    ),
    "margins that leave nothing": (
        lambda d: d.update(geometry={"fit": "pad", "margin": 32}),
        "the document: .*leaves less than half of the input",
    ),
    "pictures seen at any cost": (
        lambda d: d.update(geometry={"fit": "tile", "max_pixels": 10**9}),
        "geometry.max_pixels: Input should be less than or equal",
    ),
    "giant stage": (lambda d: d["backbone"].update(out_indices=[10**12]), "backbone.out_indices.0: Input"),
    "number without end": (lambda d: d["flow"].update(steps=10**4000), "flow.steps"),
    "rate that is none": (
        lambda d: d["thresholds"]["float32"].update(target_fpr=1.5),
        "thresholds.float32.target_fpr: Input should be less than 1",
    ),
    "calibration of nothing": (
        lambda d: d["thresholds"]["float32"].update(n_calibration=0),
        "thresholds.float32.n_calibration: Input should be greater",
    ),
    "statistics of other images": (
        lambda d: d["calibration"].update(statistics=[[1.0] * 4] * 2),
        "the document: .*must be 3 rows of 4 numbers",
    ),
    "statistics of other stages": (
        lambda d: d["calibration"].update(statistics=[[1.0] * 4, [1.0] * 5, [1.0] * 4]),
        "the document: .*must be 3 rows of 4 numbers",
    ),
    "hidden channels without end": (
        lambda d: d["flow"].update(hidden_ratio=1e9),
        "flow.hidden_ratio: Input should be less",
    ),
    "text for a number": (lambda d: d["golden"][0].update(score="high"), "golden.0.score"),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle to damage."""
    return made(tmp_path)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_is_not_valid_says_where(bundle: Path, name: str) -> None:
    change, reason = MANIFESTS[name]
    edit(bundle, change)
    for look in (read_manifest, verify):
        with pytest.raises(BundleError, match=f"manifest.json is not valid: {reason}"):
            look(bundle)


@pytest.mark.parametrize(
    ("begin", "more", "times", "end", "reason"),
    [
        ("{", '"wings{}": 0,', 5000, '"schema_version": 1}', "4,096 names"),
        ('{"flow": {', '"wings{}": 0,', 5000, '"steps": 2}}', "4,096 names"),
        ('{"metrics": {', '"same": 0,', 5000, '"same": 0}}', "4,096 names"),
        ('{"wings": [', "[],", 2**20, "[]]}", "1,048,576 lists"),
        ('{"wings": [', "0,", 2**23 + 1, "0]}", "8,388,608 values"),
    ],
)
def test_a_manifest_of_more_than_any_has(begin: str, more: str, times: int, end: str, reason: str) -> None:
    many = "".join(map(more.format, range(times))) if "{}" in more else more * times
    with pytest.raises(BundleError, match=f"^it is not valid: it has more than {reason}$"):
        parse_manifest(f"{begin}{many}{end}".encode(), "it")


NO_DOCUMENTS = {
    "empty": b"",
    "cut": b"{",
    "list": b"[]",
    "null": b"null",
    "no fields": b"{}",
    "text": b"not JSON",
    "binary": b"\xff\xfe\x00",
    "bottomless": b"[" * 100_000,
}


def test_a_truncated_manifest_is_refused_at_every_length(bundle: Path) -> None:
    data = (bundle / "manifest.json").read_bytes().rstrip()
    for length in range(0, len(data), 97):
        (bundle / "manifest.json").write_bytes(data[:length])
        with pytest.raises(BundleError, match=r"manifest\.json is not valid"):
            verify(bundle)


def test_no_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"has no readable manifest\.json"):
        verify(bundle)
    with pytest.raises(BundleError, match=r"has no readable manifest\.json"):
        verify(bundle / "absent")


@pytest.mark.parametrize("target", ["screw/other", "nut/20260101T000000-abcdef"])
def test_a_bundle_under_another_name(bundle: Path, target: str, tmp_path: Path) -> None:
    """A copy under another category would answer with the wrong part's model."""
    (tmp_path / target).parent.mkdir(exist_ok=True)
    bundle.rename(tmp_path / target)
    with pytest.raises(BundleError, match="it was moved or renamed"):
        verify(tmp_path / target)


def _missing(bundle: Path) -> None:
    (bundle / "golden/0.png").unlink()


def _extra(bundle: Path) -> None:
    (bundle / "report/extra.txt").write_text("hello")


def _hidden(bundle: Path) -> None:
    (bundle / ".hidden").write_text("hello")


def _changed(bundle: Path) -> None:
    data = bytearray((bundle / "flow.safetensors").read_bytes())
    data[-1] ^= 1
    (bundle / "flow.safetensors").write_bytes(data)


def _emptied(bundle: Path) -> None:
    (bundle / "report/metrics.jsonl").write_bytes(b"")


def _link_to_the_same(bundle: Path) -> None:
    """Even to a file with the right content: it can change behind the manifest's back."""
    (bundle / "flow.safetensors").rename(bundle.parent / "flow")
    (bundle / "flow.safetensors").symlink_to(bundle.parent / "flow")


def _linked_folder(bundle: Path) -> None:
    (bundle / "golden").rename(bundle.parent / "golden")
    (bundle / "golden").symlink_to(bundle.parent / "golden")


def _linked_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").rename(bundle.parent / "manifest")
    (bundle / "manifest.json").symlink_to(bundle.parent / "manifest")


def _pipe(bundle: Path) -> None:
    """Reading it would wait for ever."""
    os.mkfifo(bundle / "golden/pipe")


def _device(bundle: Path) -> None:
    """Reading it would never end."""
    os.mknod(bundle / "golden/zero", stat.S_IFCHR | 0o644, os.makedev(1, 5))


def _socket(bundle: Path) -> None:
    # Not by bind(), whose paths may be no longer than 107 bytes.
    os.mknod(bundle / "golden/socket", stat.S_IFSOCK | 0o644)


def _piped_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    os.mkfifo(bundle / "manifest.json")


def _folder_for_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    (bundle / "manifest.json").mkdir()


def _linked_bundle(bundle: Path) -> None:
    shutil.move(bundle, bundle.parent.parent / "elsewhere")
    bundle.symlink_to(bundle.parent.parent / "elsewhere")


def _bottomless(bundle: Path) -> None:
    (bundle / "/".join("abcdefghijklmnop")).mkdir(parents=True)


def _too_many(bundle: Path) -> None:
    for i in range(600):
        (bundle / "report" / str(i)).touch()


def _giant_manifest(bundle: Path) -> None:
    """A gigabyte of nothing, which takes no room on the disk."""
    os.truncate(bundle / "manifest.json", 2**30)


def _giant_file(bundle: Path) -> None:
    os.truncate(bundle / "report/metrics.jsonl", 2**33)


def _folder_for_file(bundle: Path) -> None:
    (bundle / "flow.safetensors").unlink()
    (bundle / "flow.safetensors").mkdir()


def _golden_elsewhere(bundle: Path) -> None:
    edit(bundle, lambda d: d["golden"][0].update(file="../../../etc/passwd"))


def _listed_elsewhere(bundle: Path) -> None:
    edit(bundle, lambda d: d["files"].update({"../20260101T000000-abcdef/manifest.json": "0" * 64}))


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing file": (_missing, r"does not hold the files that its manifest lists: \['golden/0.png'\]"),
    "extra file": (_extra, r"manifest lists: \['report/extra.txt'\]"),
    "hidden file": (_hidden, r"manifest lists: \['.hidden'\]"),
    "one bit changed": (_changed, "flow.safetensors was changed"),
    "emptied file": (_emptied, "metrics.jsonl was changed"),
    "link": (_link_to_the_same, "holds a link, flow.safetensors"),
    "linked folder": (_linked_folder, "holds a link, golden"),
    "linked manifest": (_linked_manifest, "manifest.json is a link"),
    "pipe": (_pipe, "holds something that is no file, golden/pipe"),
    "device": (_device, "holds something that is no file, golden/zero"),
    "socket": (_socket, "holds something that is no file, golden/socket"),
    "pipe for the manifest": (_piped_manifest, "manifest.json is no regular file"),
    "folder for the manifest": (_folder_for_manifest, "manifest.json is no regular file"),
    "link to the bundle": (_linked_bundle, "is a link, not a directory"),
    "bottomless": (_bottomless, "is too deep"),
    "too many": (_too_many, "holds more than 512 files"),
    "giant manifest": (_giant_manifest, "manifest.json is larger than 67,108,864 bytes"),
    "giant file": (_giant_file, "has more than 4,294,967,296 bytes"),
    "folder for a file": (_folder_for_file, r"manifest lists: \['flow.safetensors'\]"),
    "golden picture elsewhere": (_golden_elsewhere, r"golden pictures that it does not hold: \['\.\./"),
    "file elsewhere": (_listed_elsewhere, r"manifest lists: \['\.\./"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_not_those_of_the_manifest(bundle: Path, name: str) -> None:
    damage, reason = FILES[name]
    verify(bundle)
    damage(bundle)
    with pytest.raises(BundleError, match=reason) as caught:
        verify(bundle)
    assert str(bundle) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"reject": 10.0},
        {"reject": 2.0},
        {"certified": True},
        {"achievable_fpr": 0.1},
        {"n_calibration": 300},
        {"target_fpr": 0.5},
    ],
)
def test_a_threshold_that_its_calibration_does_not_give(bundle: Path, change: dict[str, Any]) -> None:
    """A manifest with an honest form may still promise what nothing behind it supports."""
    edit(bundle, lambda d: d["thresholds"]["float32"].update(change))
    read_manifest(bundle)
    with pytest.raises(
        BundleError, match="the threshold for float32 is not what its calibration scores give"
    ):
        verify(bundle)


class TestChangesBetween:
    """A bundle that changes while it is read is not taken for what it was."""

    def test_a_file(self, bundle: Path) -> None:
        found = verify(bundle)
        assert read_verified(bundle, found, "golden/0.png", 9) == b"a picture"
        (bundle / "golden/0.png").write_bytes(b"b picture")
        with pytest.raises(BundleError, match=r"golden/0\.png was changed"):
            read_verified(bundle, found, "golden/0.png", 9)
        with pytest.raises(BundleError, match="is larger than 8 bytes"):
            read_verified(bundle, found, "golden/0.png", 8)
        (bundle / "golden/0.png").unlink()
        os.mkfifo(bundle / "golden/0.png")
        with pytest.raises(BundleError, match=r"golden/0\.png is no regular file"):
            read_verified(bundle, found, "golden/0.png", 9)
        (bundle / "golden/0.png").unlink()
        with pytest.raises(BundleError, match=r"golden/0\.png cannot be read"):
            read_verified(bundle, found, "golden/0.png", 9)

    def test_the_manifest(self, bundle: Path) -> None:
        found = verify(bundle)
        sha256 = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
        assert manifest_sha256(bundle, found) == sha256
        edit(bundle, lambda d: d["metrics"].update(fit_nll=0.5))
        with pytest.raises(BundleError, match="was changed while it was read"):
            manifest_sha256(bundle, found)


def test_the_manifest_alone_can_be_read_of_a_damaged_bundle(bundle: Path) -> None:
    """Listings show what a bundle says it is; only loading checks the rest."""
    _changed(bundle)
    assert read_manifest(bundle).category == "screw"
    assert json.loads((bundle / "manifest.json").read_text())["category"] == "screw"
