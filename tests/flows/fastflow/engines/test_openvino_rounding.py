"""A backbone's graph for bfloat16: the same function, and what rounding changes about it is little."""

import logging
import stat
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flows.fastflow import rounding
from flows.fastflow.backbones import find_weights
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.rounding import nearest, probe
from tests.app.full_disk import files_of_at_most
from tests.flows.fastflow.untrained import weights

pytest.importorskip("openvino")

import openvino as ov

from flows.fastflow.engines import openvino_rounding
from flows.fastflow.engines.openvino_backbone import convert
from flows.fastflow.engines.openvino_convolutions import value_of
from flows.fastflow.engines.openvino_rounding import round_convolutions, rounded_beside
from flows.fastflow.engines.openvino_split import split

SIZE = (64, 96)
CORE = ov.Core()
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def backbone(name: str, out_indices: tuple[int, ...]) -> FeatureExtractor:
    """One with weights of chance, whose normalisations do something."""
    extractor = FeatureExtractor(weights(name=name), out_indices, SIZE)
    chance = torch.Generator().manual_seed(0)
    for module in extractor.modules():
        if isinstance(module, nn.BatchNorm2d):
            n = module.num_features
            module.weight.data = 0.5 + torch.rand(n, generator=chance)
            module.bias.data = torch.randn(n, generator=chance)
            module.running_mean = 0.1 * torch.randn(n, generator=chance)
            module.running_var = 0.5 + torch.rand(n, generator=chance)
    return extractor


def graph(extractor: FeatureExtractor) -> Any:
    """Of one picture."""
    model = convert(extractor, SIZE)
    model.reshape([1, *SIZE, 3])
    return model


def compute(part: Any, given: Any, numbers: str = "f32") -> list[NDArray[np.float32]]:
    """The outputs."""
    compiled = CORE.compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": numbers})
    found = compiled(given)
    return [found[i].copy() for i in range(len(compiled.outputs))]


def kinds(model: Any) -> Counter[str]:
    """How many operations there are of each kind."""
    return Counter(node.get_type_name() for node in model.get_ops())


def constants(model: Any) -> list[Tensor]:
    """Weights of a graph's convolutions."""
    nodes = [op for op in model.get_ordered_ops() if "Convolution" in op.get_type_name()]
    found = [value_of(node.input_value(1)) for node in nodes]
    return [torch.from_numpy(weight.copy()) for weight in found if weight is not None]


@pytest.fixture
def unrounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights stay as they are."""
    monkeypatch.setattr(rounding, "_MOST_WORK", 0)
    monkeypatch.setattr(openvino_rounding, "nearest", lambda weight: weight)


@pytest.mark.parametrize(
    ("name", "out_indices"),
    [
        ("tf_efficientnet_lite0", (2, 3)),
        # Maps that several convolutions take, sums of two normalised ones, and a pooling between.
        ("resnet10t", (1, 2, 3)),
        # Groups of several channels.
        ("regnetx_002", (1, 2)),
        # Biases before normalisations, and in the place of such.
        ("vgg11_bn", (2, 3)),
        ("convnext_atto", (1, 2)),
    ],
)
@pytest.mark.usefixtures("unrounded")
def test_but_for_the_roundings_the_graph_computes_the_same(name: str, out_indices: tuple[int, ...]) -> None:
    image, model = probe(0, SIZE)[None], graph(backbone(name, out_indices))
    before = compute(model, image)
    first, last = split(model, SIZE) or pytest.fail("in one part")
    *early, between = compute(first, image)
    clamps, convolutions = kinds(last)["Clamp"], kinds(last)["Convolution"]
    round_convolutions(CORE, EXACT, (first, last), SIZE, None)
    # One may be left that the graph was parted at.
    assert kinds(last)["BatchNormInference"] <= 1
    assert kinds(last)["Clamp"] >= clamps + convolutions
    after = [*early, *compute(last, between)]
    for a, b in zip(after, before, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet10t", "regnetx_002"])
def test_bfloat16_holds_the_weights_of_the_last_part(name: str) -> None:
    first, last = split(graph(backbone(name, (1, 2))), SIZE) or pytest.fail("in one part")
    before = constants(first)
    round_convolutions(CORE, EXACT, (first, last), SIZE, None)
    assert all(torch.equal(a, b) for a, b in zip(constants(first), before, strict=True))
    assert all(torch.equal(weight, nearest(weight)) for weight in constants(last))


@pytest.mark.usefixtures("time_to_round")
def test_features_change_less_than_by_openvinos_own_rounding() -> None:
    """On a processor without bfloat16 OpenVINO emulates it, or without AVX-512 computes in float32."""
    whole = graph(FeatureExtractor(find_weights("tf_efficientnet_lite0"), (2, 3)))

    def noise(change: Callable[[tuple[Any, ...]], None]) -> float:
        parts = split(whole.clone(), SIZE) or pytest.fail("in one part")
        images = [probe(100 + i, SIZE)[None] for i in range(4)]
        between = np.concatenate([compute(parts[0], image)[-1] for image in images])
        parts[1].reshape([-1, *between.shape[1:]])
        exact = compute(parts[1], between)[-1]
        change(parts)
        found = compute(parts[1], between, "bf16")[-1]
        deviation = exact.std((0, 2, 3), keepdims=True)
        return float(np.sqrt(np.square((found - exact) / deviation).mean()))

    own = noise(lambda _: None)
    if own == 0:
        pytest.skip("OpenVINO does not round on this processor")
    found = noise(lambda parts: round_convolutions(CORE, EXACT, parts, SIZE, None))
    assert 0 < found < 0.6 * own


@pytest.mark.usefixtures("unrounded")
def test_of_no_convolution_the_graph_stays() -> None:
    x = ov.opset13.parameter([1, *SIZE, 3], np.float32)
    model = ov.Model([ov.opset13.relu(x)], [x])
    round_convolutions(CORE, EXACT, (model,), SIZE, None)
    assert [op.get_type_name() for op in model.get_ordered_ops()] == ["Parameter", "Relu", "Result"]


def test_a_weight_for_which_there_is_no_time_is_rounded_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "_MOST_WORK", 0)
    monkeypatch.setattr(openvino_rounding, "round_together", lambda *_: pytest.fail("rounded together"))
    model = graph(backbone("resnet10t", (1, 2)))
    round_convolutions(CORE, EXACT, (model,), SIZE, None)
    assert all(torch.equal(weight, nearest(weight)) for weight in constants(model))


class TestKept:
    NAME, STAGES = "test_resnet", (1, 2)

    @staticmethod
    @cache
    def whole(name: str, stages: tuple[int, ...]) -> Any:
        """A graph that is not rounded."""
        return graph(FeatureExtractor(weights(name=name), stages))

    def rounded(self, kept: Path) -> list[Tensor]:
        """The weights of a graph that is kept so."""
        model = self.whole(self.NAME, self.STAGES).clone()
        round_convolutions(CORE, EXACT, (model,), SIZE, rounded_beside(kept))
        return constants(model)

    def test_weights_are_not_rounded_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = self.rounded(tmp_path / "graph.xml")
        [file] = tmp_path.iterdir()
        monkeypatch.setattr(openvino_rounding, "_grams", lambda *_: pytest.fail("rounded again"))
        found = self.rounded(tmp_path / "graph.xml")
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert stat.S_IMODE(file.stat().st_mode) == 0o644  # for servers of other users, too
        assert file.stat().st_size < 2.2 * sum(weight.numel() for weight in expected)

    @pytest.mark.parametrize("damage", ["cut", "emptied", "of another graph"])
    def test_a_damaged_file_is_made_anew(
        self, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = tmp_path / "graph.xml"
        expected = self.rounded(kept)
        [file] = tmp_path.iterdir()
        whole = file.read_bytes()
        if damage == "of another graph":
            with monkeypatch.context() as patch:
                patch.setattr(self, "STAGES", (1,))
                file.unlink()
                self.rounded(kept)
        else:
            file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
        found = self.rounded(kept)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert file.read_bytes() == whole

    def test_on_a_full_disk_they_are_rounded_and_not_kept(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING), files_of_at_most(1000):
            found = self.rounded(tmp_path / "graph.xml")
        assert "the next start rounds weights again" in caplog.text
        assert list(tmp_path.iterdir()) == []
        assert all(torch.equal(weight, nearest(weight)) for weight in found)
