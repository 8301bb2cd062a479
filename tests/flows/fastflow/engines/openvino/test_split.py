"""A backbone's graph in two parts: together they compute what the whole computes."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.fastflow.backbones.features import FeatureExtractor
from flows.fastflow.engines.engine import pick_engine
from tests.flows.fastflow.untrained import weights

pytest.importorskip("openvino")

import openvino as ov

from flows.fastflow.engines.openvino import engine as openvino_engine
from flows.fastflow.engines.openvino.backbone import convert
from flows.fastflow.engines.openvino.split import split_graph

SIZE = (64, 96)
CPU = torch.device("cpu")


def extractor(name: str, out_indices: tuple[int, ...], size: tuple[int, int] = SIZE) -> FeatureExtractor:
    return FeatureExtractor(weights(name=name), out_indices, size)


def compute(model: Any, given: Any) -> list[NDArray[np.float32]]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(given)
    return [found[i].copy() for i in range(len(compiled.outputs))]


@pytest.mark.parametrize(
    ("name", "out_indices", "joint", "early"),
    [
        # After its first block of stride 4, whose output is narrower than what lies in it.
        ("tf_efficientnet_lite0", (2, 3, 4), (24, 16, 24), 0),
        # A map of stride 2 is an output of the first part.
        ("test_efficientnet", (0, 3), (24, 16, 24), 1),
        # After its maximum pooling.
        ("resnet10t", (1, 2, 3), (64, 16, 24), 0),
        ("convnext_atto", (1, 2), (40, 16, 24), 0),
    ],
)
def test_both_parts_compute_what_the_whole_does(
    name: str, out_indices: tuple[int, ...], joint: tuple[int, int, int], early: int
) -> None:
    backbone = extractor(name, out_indices)
    images = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    whole = convert(backbone, SIZE)
    expected = compute(whole, images)
    parts = split_graph(whole, SIZE)
    assert parts is not None
    first, second = parts
    [given] = second.inputs
    assert [given.get_partial_shape()[i].get_length() for i in (1, 2, 3)] == list(joint)
    *found, between = compute(first, images)
    assert len(found) == early
    found += compute(second, between)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_odd_sides_are_split_at_the_same_place() -> None:
    """Maps round up: a quarter of 61 is 16."""
    size = (61, 94)
    parts = split_graph(convert(extractor("test_efficientnet", (2, 3, 4), size), size), size)
    assert parts is not None
    [given] = parts[1].inputs
    assert [given.get_partial_shape()[i].get_length() for i in (1, 2, 3)] == [24, 16, 24]


def test_what_no_single_map_leads_to_stays_whole() -> None:
    # Branches of several sizes go on beside each other; and a transformer's tokens are no map.
    assert split_graph(convert(extractor("hrnet_w18_small", (1, 2)), SIZE), SIZE) is None
    transformer = extractor("vit_tiny_patch16_224", (3,), (64, 64))
    assert split_graph(convert(transformer, (64, 64)), (64, 64)) is None


def test_only_what_comes_after_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    hints = []
    compile_model = ov.Core.compile_model

    def watched(core: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        hints.append((len(model.get_ops()), settings["INFERENCE_PRECISION_HINT"]))
        return compile_model(core, model, device, settings)

    monkeypatch.setattr(ov.Core, "compile_model", watched)
    # Once, for an image by all threads.
    monkeypatch.setattr(openvino_engine, "_STREAMS", 1)
    backbone = extractor("test_efficientnet", (2, 3))
    images = torch.randint(0, 256, (3, *SIZE, 3), dtype=torch.uint8)
    found = pick_engine("openvino-bfloat16", CPU).backbone(backbone, SIZE)(images)
    expected = pick_engine("float32", CPU, "openvino").backbone(backbone, SIZE)(images)
    (first, exact), (second, rounded), (whole, of_whole) = hints[-3:]
    assert (exact, rounded, of_whole) == ("f32", "bf16", "f32")
    assert first < second < whole
    assert [m.shape for m in found] == [m.shape for m in expected]
    for a, b in zip(found, expected, strict=True):
        # As far apart as rounding moves them, where the processor rounds at all.
        assert float((a - b).pow(2).mean().sqrt()) < 0.1 * float(b.std())
