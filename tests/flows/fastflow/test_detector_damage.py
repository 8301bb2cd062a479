"""A bundle that would not compute what was calibrated is refused, with the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from flows.fastflow.bundle import FLOW, BundleError
from flows.fastflow.detector import Detector
from flows.fastflow.engines import Kind, pick_engine
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.weights import WeightsError, WeightsNotFoundError
from tests.flows.fastflow.manifests import edit, rehash

State = dict[str, torch.Tensor]


def set_backbone(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["backbone"].update(values)


def set_flow(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["flow"].update(values)


class TestFlow:
    """Damage to flow.safetensors, under a manifest that vouches for the damaged file."""

    def refused(self, bundle: Path, backbone: FeatureExtractor, reason: str) -> None:
        rehash(bundle)
        with pytest.raises(BundleError, match=reason) as caught:
            Detector.load(bundle, device="cpu", backbone=backbone)
        assert str(bundle) in str(caught.value)

    @pytest.mark.parametrize("content", [b"text", b"\xff" * 100, bytes(8), b"\0" * 7 + b"\x10" + b"x" * 99])
    def test_something_else(self, tiny: Path, tiny_extractor: FeatureExtractor, content: bytes) -> None:
        (tiny / FLOW).write_bytes(content)
        self.refused(tiny, tiny_extractor, r"flow\.safetensors cannot be read")

    @pytest.mark.parametrize(
        "change",
        [
            lambda state: state.pop("normaliser.mean_0"),
            lambda state: state.update(extra=torch.zeros(3)),
            lambda state: state.update({"normaliser.mean_0": torch.zeros(25)}),
            lambda state: state.update({"normaliser.mean_0": torch.zeros(24, 1)}),
        ],
        ids=["missing", "extra", "longer", "deeper"],
    )
    def test_other_tensors(
        self, tiny: Path, tiny_extractor: FeatureExtractor, change: Callable[[State], object]
    ) -> None:
        state = load((tiny / FLOW).read_bytes())
        change(state)
        save_file(state, tiny / FLOW)
        self.refused(tiny, tiny_extractor, "does not fit its manifest: 1 tensors differ, first")

    @pytest.mark.parametrize("index", [10**6, -1, 0])
    def test_a_permutation_that_is_none(
        self, tiny: Path, tiny_extractor: FeatureExtractor, index: int
    ) -> None:
        """Right names and shapes; 0 comes twice then."""
        state = load((tiny / FLOW).read_bytes())
        name = next(key for key in state if key.endswith(".index"))
        assert state[name][0] != 0
        state[name][0] = index
        save_file(state, tiny / FLOW)
        self.refused(
            tiny, tiny_extractor, r"holds no flow: Permutation expected each of 0\.\.C-1 exactly once$"
        )

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (torch.nan, ": the model's energies of a picture are not numbers; "),
            (torch.inf, ": the model's energies of a picture are not numbers; "),
            (1e30, " scores .* "),
        ],
    )
    def test_weights_that_are_not_those_trained(
        self, tiny: Path, tiny_extractor: FeatureExtractor, value: float, said: str
    ) -> None:
        """Right names and shapes: only the golden pictures can tell."""
        state = load((tiny / FLOW).read_bytes())
        state["normaliser.mean_0"][0] = value
        save_file(state, tiny / FLOW)
        self.refused(tiny, tiny_extractor, f"golden picture golden/0.png{said}it will not be served")


class TestManifest:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (
                set_backbone(channels=[24, 41]),
                r"channels of tf_efficientnet_lite0 were \[24, 41\] in training",
            ),
            (set_backbone(strides=[4, 4]), "strides of tf_efficientnet_lite0 were"),
            (set_backbone(mean=[0.4, 0.5, 0.5]), "mean of tf_efficientnet_lite0 were"),
            (set_flow(steps=5), "does not fit its manifest"),
            (set_flow(kernels="3"), "does not fit its manifest"),
            (set_flow(clamp=0.01), "it will not be served"),
            (lambda d: d["normalisation"].update(pooling=5), "it will not be served"),
            (lambda d: d["normalisation"].update(mode="layer"), "it will not be served"),
            (lambda d: d["score"].update(top_fraction=0.5), "it will not be served"),
            (
                lambda d: d.update(input_size=[96, 64]),
                r"maps of \(\(16, 16\), \(8, 8\)\), .*; got \(\(24, 16\)",
            ),
            (lambda d: d["gaussian"].update(sizes=None), "does not fit its manifest"),
            (lambda d: d["gaussian"].update(sizes=[[16, 16]]), "gaussian.sizes must be of 2 maps"),
            (lambda d: d.pop("gaussian"), "does not fit its manifest"),
            (lambda d: d["golden"][0].update(score=d["golden"][0]["score"] * 1.01), "it will not be served"),
        ],
    )
    def test_a_manifest_that_says_something_else_than_was_trained(
        self,
        tiny: Path,
        tiny_extractor: FeatureExtractor,
        change: Callable[[dict[str, Any]], object],
        reason: str,
    ) -> None:
        edit(tiny, change)
        with pytest.raises(BundleError, match=reason):
            Detector.load(tiny, device="cpu", backbone=tiny_extractor)


class TestGolden:
    def test_a_picture_that_cannot_be_decoded(self, tiny: Path, tiny_extractor: FeatureExtractor) -> None:
        (tiny / "golden/0.png").write_bytes((tiny / "golden/0.png").read_bytes()[:200])
        rehash(tiny)
        with pytest.raises(BundleError, match=r"golden picture golden/0\.png: "):
            Detector.load(tiny, device="cpu", backbone=tiny_extractor)

    def test_pictures_that_changed_places(self, tiny: Path, tiny_extractor: FeatureExtractor) -> None:
        (tiny / "golden/0.png").rename(tiny / "golden/x")
        (tiny / "golden/2.png").rename(tiny / "golden/0.png")
        (tiny / "golden/x").rename(tiny / "golden/2.png")
        rehash(tiny)
        with pytest.raises(BundleError, match=r"golden/0\.png scores .* when the model was made"):
            Detector.load(tiny, device="cpu", backbone=tiny_extractor)


class TestBackbone:
    @pytest.fixture(scope="module")
    @staticmethod
    def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
        """What engines have compiled; of another record there is nothing in it."""
        return tmp_path_factory.mktemp("engines")

    def test_other_weights_than_it_was_trained_on(self, tiny: Path) -> None:
        edit(tiny, set_backbone(weights_sha256="ab" * 32))
        with pytest.raises(WeightsNotFoundError, match="no weights with digest abababababab found"):
            Detector.load(tiny, device="cpu")

    def test_weights_changed_in_the_folder(self, tiny: Path) -> None:
        [file] = (tiny.parents[1] / "backbones").iterdir()
        state = load(file.read_bytes())
        state["conv_stem.weight"] += 1e-3
        save_file(state, file)
        with pytest.raises(WeightsNotFoundError, match="has weights of tf_efficientnet_lite0 with digest"):
            Detector.load(tiny, device="cpu")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (set_backbone(name="resnet81"), "timm .* knows no model 'resnet81'"),
            (set_backbone(name="../../../etc/passwd"), "knows no model"),
            (set_backbone(out_indices=[2, 1]), "out_indices must rise"),
            (set_backbone(out_indices=[1, 99]), "gives no feature maps at out_indices"),
        ],
    )
    def test_a_backbone_that_cannot_be(
        self, tiny: Path, change: Callable[[dict[str, Any]], object], reason: str
    ) -> None:
        edit(tiny, change)
        with pytest.raises(WeightsError, match=reason):
            Detector.load(tiny, device="cpu")

    @pytest.mark.threads(2)
    @pytest.mark.parametrize("kind", ["torch", "openvino"])
    @pytest.mark.parametrize("values", [{"strides": [1, 8]}, {"mean": []}, {"std": [0, 0, 0]}], ids=str)
    def test_a_false_record(self, tiny: Path, kept: Path, kind: Kind, values: dict[str, object]) -> None:
        if kind == "openvino":
            pytest.importorskip("openvino")
        engine = pick_engine("float32", torch.device("cpu"), kind, kept)
        Detector.load(tiny, device="cpu", engine=engine)  # keeps what it compiled
        edit(tiny, set_backbone(**values))
        with pytest.raises(BundleError, match="here; is this another version of timm"):
            Detector.load(tiny, device="cpu", engine=engine)
