"""Every kind of damage to a bundle is refused with the reason."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.fastflow.bundle.bundle import BundleError, read_manifest, verify
from tests.flows.fastflow.manifests import edit, made

Change = Callable[[dict[str, Any]], object]

MANIFESTS: dict[str, tuple[Change, str]] = {
    "other schema": (lambda d: d.update(schema_version=2, wings=True), "schema_version: Input should be 1"),
    "unknown field": (lambda d: d.update(wings=True), "wings: Extra inputs are not permitted"),
    "even pooling": (lambda d: d["normalisation"].update(pooling=2), "normalisation.pooling: .*must be odd"),
    "threshold not a number": (
        lambda d: d["thresholds"]["float32"].update(reject=float("nan")),
        "thresholds.float32.reject: Input should be a finite number",
    ),
    "a golden picture that comes twice": (
        lambda d: d.update(golden=d["golden"] * 2),
        "golden: .*two entries name the same file",
    ),
    "more calibration scores than anybody needs": (
        lambda d: d["calibration"].update(scores=[1.0] * 200_001),
        "calibration.scores: List should have at most 200000",
    ),
    "giant area": (lambda d: d.update(input_size=[4096, 4096]), "input_size: .*more than 4,194,304 pixels"),
    "margins that leave nothing": (
        lambda d: d.update(geometry={"fit": "pad", "margin": 32}),
        "the document: .*leaves less than half of the input",
    ),
    "statistics of other images": (
        lambda d: d["calibration"].update(statistics=[[1.0] * 4] * 2),
        "the document: .*must be 3 rows of 4 numbers",
    ),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return made(tmp_path)


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest_that_is_not_valid_says_where(bundle: Path, name: str) -> None:
    change, reason = MANIFESTS[name]
    edit(bundle, change)
    for look in (read_manifest, verify):
        with pytest.raises(BundleError, match=f"manifest.json is not valid: {reason}"):
            look(bundle)


def test_no_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"has no readable manifest\.json"):
        verify(bundle)
    with pytest.raises(BundleError, match=r"has no readable manifest\.json"):
        verify(bundle / "absent")


@pytest.mark.parametrize("target", ["screw/other", "nut/20260101T000000-abcdef"])
def test_bundle_under_another_name(bundle: Path, target: str, tmp_path: Path) -> None:
    """A copy under another category would answer with the wrong part's model."""
    (tmp_path / target).parent.mkdir(exist_ok=True)
    bundle.rename(tmp_path / target)
    with pytest.raises(BundleError, match="it was moved or renamed"):
        verify(tmp_path / target)


def _replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Move a file out of the bundle, and make something else in its place."""

    def damage(bundle: Path) -> None:
        (bundle / name).rename(bundle.parent / "moved")
        make(bundle / name)

    return damage


def _link(path: Path) -> None:
    """Even to a file with the right content: it can change behind the manifest's back."""
    path.symlink_to(path.parents[1] / "moved")


def _changed(bundle: Path) -> None:
    data = bytearray((bundle / "flow.safetensors").read_bytes())
    data[-1] ^= 1
    (bundle / "flow.safetensors").write_bytes(data)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing file": (
        lambda bundle: (bundle / "golden/0.png").unlink(),
        r"does not hold the files that its manifest lists: \['golden/0.png'\]",
    ),
    "extra file": (
        lambda bundle: (bundle / "report/extra.txt").write_text("hello"),
        r"manifest lists: \['report/extra.txt'\]",
    ),
    "one bit changed": (_changed, "flow.safetensors was changed"),
    "link": (_replace("flow.safetensors", _link), "holds a link: flow.safetensors"),
    "linked manifest": (_replace("manifest.json", _link), "manifest.json is a link"),
    # Reading it would wait for ever.
    "pipe": (
        lambda bundle: os.mkfifo(bundle / "golden/pipe"),
        "holds an entry that is not a regular file: golden/pipe",
    ),
    "folder for the manifest": (_replace("manifest.json", Path.mkdir), "manifest.json is not a regular file"),
    "too many": (
        lambda bundle: [(bundle / "report" / str(i)).write_bytes(b"") for i in range(600)],
        "holds more than 512 files",
    ),
    # A gigabyte of nothing, which takes no room on the disk.
    "giant manifest": (
        lambda bundle: os.truncate(bundle / "manifest.json", 2**30),
        "manifest.json is larger than 67,108,864 bytes",
    ),
    "golden picture elsewhere": (
        lambda bundle: edit(bundle, lambda d: d["golden"][0].update(file="../../../etc/passwd")),
        r"golden images that it does not hold: \['\.\./",
    ),
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
def test_threshold_that_its_calibration_does_not_give(bundle: Path, change: dict[str, Any]) -> None:
    """A manifest with an honest form may still promise what nothing behind it supports."""
    edit(bundle, lambda d: d["thresholds"]["float32"].update(change))
    read_manifest(bundle)
    with pytest.raises(
        BundleError, match="the threshold for float32 does not follow from its calibration scores"
    ):
        verify(bundle)
