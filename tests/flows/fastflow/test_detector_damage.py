"""A bundle that would not compute what was calibrated is refused, with the reason."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from flows.fastflow import detector
from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.backbones.weights import WeightsError, WeightsNotFoundError
from flows.fastflow.bundle.bundle import FLOW, BundleError, verify
from flows.fastflow.detector import Detector
from flows.fastflow.engines.engine import EngineKind, pick_engine
from flows.fastflow.manifest import Manifest
from tests.conftest import picture, png
from tests.flows.fastflow.manifests import edit, rehash

Change = Callable[[Any], object]  # of a manifest, of tensors, or of a bundle
Refused = Callable[[str], None]


@pytest.fixture
def refused(tiny: Path, tiny_extractor: FeatureExtractor) -> Refused:
    """Loads the bundle, which must fail for a reason."""

    def check(reason: str) -> None:
        with pytest.raises(BundleError, match=reason) as caught:
            Detector.load(tiny, device="cpu", backbone=tiny_extractor)
        assert str(tiny) in str(caught.value)

    return check


def put(section: str, **values: object) -> Change:
    return lambda document: document[section].update(values)


def first(name: str, value: float) -> Change:
    """A first element of the first tensor whose name ends so."""

    def change(state: dict[str, torch.Tensor]) -> None:
        tensor = next(tensor for key, tensor in state.items() if key.endswith(name))
        assert tensor[0] != value
        tensor[0] = value

    return change


def change_flow(bundle: Path, change: Change) -> None:
    state = load((bundle / FLOW).read_bytes())
    change(state)
    save_file(state, bundle / FLOW)


@pytest.mark.parametrize("content", [b"text", b"\xff" * 100, bytes(8), b"\0" * 7 + b"\x10" + b"x" * 99])
def test_flow_of_something_else(tiny: Path, refused: Refused, content: bytes) -> None:
    (tiny / FLOW).write_bytes(content)
    rehash(tiny)
    refused(r"flow\.safetensors cannot be read")


MEAN = "normaliser.mean_0"
OTHERS, NO_ORDER = "does not fit its manifest: 1 tensors differ, first", "holds no flow: Permutation expected"
NO_NUMBERS = "golden image golden/0.png: the model's energies of an image are not numbers"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop(MEAN), OTHERS),
        (lambda state: state.update(extra=torch.zeros(3)), OTHERS),
        (lambda state: state.update({MEAN: torch.zeros(25)}), OTHERS),
        (lambda state: state.update({MEAN: torch.zeros(24, 1)}), OTHERS),
        (first(".index", 10**6), NO_ORDER),
        (first(".index", -1), NO_ORDER),
        (first(".index", 0), NO_ORDER),  # which comes twice then
        # Right names and shapes: only the golden images can tell.
        (first(MEAN, torch.nan), NO_NUMBERS),
        (first(MEAN, torch.inf), NO_NUMBERS),
        (first(MEAN, 1e30), "golden image golden/0.png scores .* it will not be served"),
    ],
)
def test_flow_of_other_tensors(tiny: Path, refused: Refused, change: Change, reason: str) -> None:
    change_flow(tiny, change)
    rehash(tiny)  # a manifest that vouches for the damaged file
    refused(reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            put("backbone", channels=[24, 41]),
            r"channels of tf_efficientnet_lite0 were \[24, 41\] in training",
        ),
        (put("backbone", strides=[4, 4]), "strides of tf_efficientnet_lite0 were"),
        (put("backbone", mean=[0.4, 0.5, 0.5]), "mean of tf_efficientnet_lite0 were"),
        (put("flow", steps=5), "does not fit its manifest"),
        (put("flow", kernels="3"), "does not fit its manifest"),
        (put("flow", clamp=0.01), "it will not be served"),
        (put("normalisation", pooling=5), "it will not be served"),
        (put("normalisation", mode="layer"), "it will not be served"),
        (put("score", top_fraction=0.5), "it will not be served"),
        (lambda d: d.update(input_size=[96, 64]), r"maps of \(\(16, 16\), \(8, 8\)\), .*; got \(\(24, 16\)"),
        (put("gaussian", sizes=None), "does not fit its manifest"),
        (put("gaussian", cells=4), "does not fit its manifest"),
        (put("gaussian", sizes=[[16, 16]]), "gaussian.sizes must be of 2 maps"),
        (lambda d: d.pop("gaussian"), "does not fit its manifest"),
        (lambda d: d["golden"][0].update(score=d["golden"][0]["score"] * 1.01), "it will not be served"),
    ],
)
def test_manifest_that_says_something_else_than_was_trained(
    tiny: Path, refused: Refused, change: Change, reason: str
) -> None:
    edit(tiny, change)
    refused(reason)


def test_damaged_or_swapped_golden_images_are_rejected(tiny: Path, refused: Refused) -> None:
    one, other = tiny / "golden/0.png", tiny / "golden/2.png"
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    rehash(tiny)
    refused(r"golden/0\.png scores .* when the model was made")
    one.write_bytes(data[:200])
    rehash(tiny)
    refused(r"golden image golden/0\.png: ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        # Weights that score a little differently: too little for the golden images to tell.
        (
            lambda bundle: change_flow(bundle, lambda state: state[MEAN].add_(1e-7)),
            r"flow\.safetensors was changed",
        ),
        (lambda bundle: edit(bundle, put("metrics", fit_nll=0.0)), "was changed while it was read"),
        (
            lambda bundle: (bundle / "golden/0.png").write_bytes(png(picture(99))),
            r"golden/0\.png was changed",
        ),
        (shutil.rmtree, "cannot be read"),
    ],
    ids=["flow", "manifest", "golden", "gone"],
)
def test_what_changes_after_it_was_verified_is_rejected(
    tiny: Path, refused: Refused, change: Change, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify_and_change(bundle: Path) -> Manifest:
        found = verify(bundle)
        change(bundle)
        return found

    monkeypatch.setattr(detector, "verify", verify_and_change)
    refused(reason)


class TestBackbone:
    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"weights_sha256": "ab" * 32}, "no weights with digest abababababab found"),
            ({"name": "resnet81"}, "timm .* has no model 'resnet81'"),
            ({"name": "../../../etc/passwd"}, "has no model"),
            ({"out_indices": [2, 1]}, "out_indices must rise"),
            ({"out_indices": [1, 99]}, "gives no feature maps at out_indices"),
        ],
    )
    def test_one_that_cannot_be(self, tiny: Path, values: dict[str, object], reason: str) -> None:
        edit(tiny, put("backbone", **values))
        with pytest.raises(WeightsError, match=reason):
            Detector.load(tiny, device="cpu")

    def test_weights_changed_in_the_folder(self, tiny: Path) -> None:
        [file] = (tiny.parents[1] / "backbones").iterdir()
        state = load(file.read_bytes())
        state["conv_stem.weight"] += 1e-3
        save_file(state, file)
        with pytest.raises(WeightsNotFoundError, match="has weights of tf_efficientnet_lite0 with digest"):
            Detector.load(tiny, device="cpu")

    @pytest.mark.threads(2)
    @pytest.mark.parametrize("kind", ["torch", "openvino"])
    @pytest.mark.parametrize("values", [{"strides": [1, 8]}, {"mean": []}, {"std": [0, 0, 0]}], ids=str)
    def test_false_record(
        self, tiny: Path, tmp_path: Path, kind: EngineKind, values: dict[str, object]
    ) -> None:
        if kind == "openvino":
            pytest.importorskip("openvino")
        engine = pick_engine("float32", torch.device("cpu"), kind, tmp_path / "engines")
        Detector.load(tiny, device="cpu", engine=engine)  # keeps what it compiled
        edit(tiny, put("backbone", **values))
        with pytest.raises(BundleError, match="now; is this another version of timm"):
            Detector.load(tiny, device="cpu", engine=engine)
