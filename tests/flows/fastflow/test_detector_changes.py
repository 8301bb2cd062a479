"""A bundle that changes between being verified and being loaded: it is loaded as verified, or refused."""

import shutil
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
from tests.flows.fastflow.manifests import edit


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
