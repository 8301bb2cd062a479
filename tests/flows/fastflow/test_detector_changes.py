"""A bundle that changes between being verified and being loaded: it is loaded as verified, or refused."""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load, save_file

from flows.fastflow import detector
from flows.fastflow.bundle import FLOW, BundleError, verify
from flows.fastflow.detector import Detector
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.manifest import Manifest
from tests.conftest import picture, png
from tests.flows.fastflow.manifests import edit, rehash


def other_flow(bundle: Path) -> None:
    """Weights that score a little differently: too little for the golden pictures to tell."""
    state = load((bundle / FLOW).read_bytes())
    name = next(key for key in state if key.endswith("log_scale"))
    state[name] += 1e-7
    save_file(state, bundle / FLOW)


def other_manifest(bundle: Path) -> None:
    edit(bundle, lambda d: d["metrics"].update(fit_nll=0.0))


def other_golden(bundle: Path) -> None:
    (bundle / "golden" / "0.png").write_bytes(png(picture(99)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (other_flow, r"flow\.safetensors was changed"),
        (other_manifest, "was changed while it was read"),
        (other_golden, r"golden/0\.png was changed"),
        (lambda bundle: (bundle / FLOW).unlink(), r"flow\.safetensors cannot be read"),
        (shutil.rmtree, "cannot be read"),
    ],
    ids=["flow", "manifest", "golden", "flow gone", "all gone"],
)
def test_what_changes_after_it_was_verified_is_refused(
    tiny: Path,
    tiny_extractor: FeatureExtractor,
    change: Callable[[Path], object],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def verify_and_change(bundle: Path) -> Manifest:
        found = verify(bundle)
        change(bundle)
        return found

    Detector.load(tiny, device="cpu", backbone=tiny_extractor)
    monkeypatch.setattr(detector, "verify", verify_and_change)
    with pytest.raises(BundleError, match=reason):
        Detector.load(tiny, device="cpu", backbone=tiny_extractor)


def write_header(bundle: Path, tensor: dict[str, object], data: bytes = b"") -> None:
    header = json.dumps({"normaliser.mean_0": tensor}).encode()
    (bundle / FLOW).write_bytes(len(header).to_bytes(8, "little") + header + data)
    rehash(bundle)


class TestFlow:
    def test_one_far_larger_than_its_shapes_is_not_read(
        self, tiny: Path, tiny_extractor: FeatureExtractor
    ) -> None:
        write_header(tiny, {"dtype": "U8", "shape": [2**25], "data_offsets": [0, 2**25]}, bytes(2**25))
        with pytest.raises(
            BundleError, match=r"flow\.safetensors does not fit its manifest: .* is larger than"
        ):
            Detector.load(tiny, device="cpu", backbone=tiny_extractor)


@pytest.mark.parametrize("sides", [(16_384, 16_384), (60_000, 60_000), (16_385, 1)])
def test_a_golden_picture_that_would_fill_the_memory(
    tiny: Path, tiny_extractor: FeatureExtractor, sides: tuple[int, int]
) -> None:
    """The header of a PNG of three gigabytes of pixels; the rest is not looked at."""
    good = bytearray((tiny / "golden" / "0.png").read_bytes())
    good[16:20], good[20:24] = (side.to_bytes(4, "big") for side in sides)
    good[29:33] = zlib.crc32(good[12:29]).to_bytes(4, "big")
    (tiny / "golden" / "0.png").write_bytes(good)
    rehash(tiny)
    with pytest.raises(BundleError, match=r"golden picture golden/0\.png: .* pixels; at most"):
        Detector.load(tiny, device="cpu", backbone=tiny_extractor)
