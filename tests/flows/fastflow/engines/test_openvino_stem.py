"""The convolution of pixels by bfloat16: of numbers that it holds, and the same function."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.fastflow.engines import computes_bfloat16
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.rounding import nearest, probe
from tests.flows.fastflow.untrained import weights

pytest.importorskip("openvino")

import openvino as ov
import openvino.opset13 as op

from flows.fastflow.engines import openvino_engine, openvino_stem
from flows.fastflow.engines.openvino_backbone import convert
from flows.fastflow.engines.openvino_convolutions import found_in, users_of
from flows.fastflow.engines.openvino_engine import OpenVinoEngine
from flows.fastflow.engines.openvino_split import joint
from flows.fastflow.engines.openvino_stem import stem_in_bfloat16

SIZE = (62, 96)
CORE = ov.Core()
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


@cache
def backbone(name: str, out_indices: tuple[int, ...]) -> FeatureExtractor:
    """A backbone with weights of chance, and a first normalisation that does something."""
    extractor = FeatureExtractor(weights(name=name), out_indices, SIZE)
    if isinstance(first := getattr(extractor.backbone, "bn1", None), torch.nn.BatchNorm2d):
        chance = torch.Generator().manual_seed(0)
        first.bias.data = torch.randn(first.num_features, generator=chance)
        first.running_mean = 0.1 * torch.randn(first.num_features, generator=chance)
    return extractor


def graph(name: str, out_indices: tuple[int, ...]) -> Any:
    """Of one picture."""
    model = convert(backbone(name, out_indices), SIZE)
    model.reshape([1, *SIZE, 3])
    return model


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def in_bfloat16(model: Any) -> bool:
    return stem_in_bfloat16(CORE, EXACT, model, SIZE)


def maps(model: Any, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    compiled = CORE.compile_model(model, "CPU", EXACT)
    found = compiled(pictures)
    return [found[i].copy() for i in range(len(compiled.outputs))]


def made_by(node: Any, model: Any, pictures: NDArray[np.uint8]) -> torch.Tensor:
    """What a node of a graph gives."""
    asked = ov.Model([op.result(node.output(0))], model.get_parameters()).clone()
    [found] = maps(asked, pictures)
    return torch.from_numpy(found)


def given_to(model: Any, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the first convolution takes."""
    return made_by(next(iter(found_in(model))).node.input_value(0).get_node(), model, pictures).numpy()


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)


def held(values: NDArray[np.float32]) -> bool:
    """Whether bfloat16 holds all of them."""
    return bool((torch.from_numpy(values).bfloat16().float().numpy() == values).all())


@pytest.mark.parametrize("name", ["resnet18", "wide_resnet50_2"])
def test_it_is_of_numbers_that_bfloat16_holds_and_computes_nearly_the_same(
    name: str, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the edge of the picture, too, where zeros are up to half a grey value beside what is taken off."""
    photograph = probe(100, SIZE)[None]
    before = graph(name, (1,))
    expected = made_by(next(iter(found_in(before))).after, before, photograph)
    model = graph(name, (1,))
    assert in_bfloat16(model)
    stem = next(iter(found_in(model)))
    assert torch.equal(nearest(stem.flat), stem.flat)
    # It would be rounded as a bias.
    assert stem.bias is None
    for value in (0, 255):
        assert held(given_to(model, np.full_like(picture, value)))
    assert held(given_to(model, picture))

    def errors_of(model: Any) -> torch.Tensor:
        # What is added after a clamp, as it is of no bias.
        [clamp] = users_of(next(iter(found_in(model))).node)
        [total] = users_of(clamp)
        return (made_by(total, model, photograph) - expected) / expected.std()

    def inner(errors: torch.Tensor) -> float:
        return float(errors[..., 2:-2, 2:-2].pow(2).mean().sqrt())

    errors = errors_of(model)
    assert inner(errors) < 4e-4
    assert float(errors.abs().max()) < 1.5e-2
    monkeypatch.setattr(openvino_stem, "round_together", lambda weight, _: nearest(weight))
    one_by_one = graph(name, (1,))
    assert in_bfloat16(one_by_one)
    assert inner(errors_of(one_by_one)) > 3 * inner(errors)


def sums_before(until: Any) -> Any:
    """What gives the numbers that a map is picked from by ReLU and pooling."""
    return until.input_value(0).get_node().input_value(0).get_node()


def test_rounding_the_sums_is_rounding_the_map_that_is_picked_from_them(picture: NDArray[np.uint8]) -> None:
    """As the second part of a graph takes it."""
    before, model = graph("resnet18", (1,)), graph("resnet18", (1,))
    made = joint(before, SIZE)
    assert made is not None
    assert in_bfloat16(model)
    until = joint(model, SIZE)
    assert until is not None
    rounded = made_by(sums_before(until), model, picture).bfloat16().float()
    picked = torch.nn.functional.max_pool2d(rounded.relu(), 3, 2, 1)
    assert torch.equal(picked, made_by(until, model, picture).bfloat16().float())
    # And so near the map at which the graph would be parted, even of mere noise.
    expected = made_by(made, before, picture)
    assert float((picked - expected).pow(2).mean().sqrt() / expected.std()) < 5e-3


@pytest.mark.parametrize(
    ("name", "out_indices"),
    [
        # Depthwise convolutions follow, before the map to part at.
        ("tf_efficientnet_lite0", (2, 3)),
        # Three convolutions before the pooling.
        ("resnet10t", (1, 2)),
        # A stage of stride 2 is asked for, too.
        ("resnet18", (0, 1)),
        # There is nothing to part at.
        ("hrnet_w18_small", (1,)),
        # The map to part at is normalised next, in float32.
        ("densenet121", (1,)),
    ],
)
def test_other_graphs_stay_as_they_are(name: str, out_indices: tuple[int, ...]) -> None:
    model = graph(name, out_indices)
    before = kinds(model)
    assert not in_bfloat16(model)
    assert kinds(model) == before


def _square_root(x: Any) -> Any:
    return op.sqrt(op.abs(x))


def _noise(x: Any) -> Any:
    return op.add(x, op.constant(np.random.default_rng(0).random((1, 3, *SIZE), np.float32)))


def _cropped(x: Any) -> Any:
    start, stop, step, axes = ([0, 0], [SIZE[0] - 2, SIZE[1] - 2], [1, 1], [2, 3])
    return op.slice(x, *(op.constant(np.array(n)) for n in (start, stop, step, axes)))


def _other_order(x: Any) -> Any:
    return op.gather(x, op.constant(np.array([2, 1, 0])), op.constant(np.array(1)))


@pytest.mark.parametrize("change", [_square_root, _noise, _cropped, _other_order])
def test_pixels_that_are_not_merely_normalised_stay(change: Any) -> None:
    model = graph("resnet18", (1,))
    port = next(iter(found_in(model))).node.input(0)
    port.replace_source_output(change(port.get_source_output()).output(0))
    model.validate_nodes_and_infer_types()
    made = joint(model, SIZE)
    assert made is not None
    assert made.get_type_name() == "MaxPool"
    before = kinds(model)
    assert not in_bfloat16(model)
    assert kinds(model) == before


def test_a_bias_is_added_in_float32() -> None:
    """Of a convolution that no normalisation follows; in bfloat16 these would be off by up to .0019."""
    extractor = FeatureExtractor(weights(name="resnet18"), (1,), SIZE)
    first: Any = extractor.backbone
    first.conv1.bias = torch.nn.Parameter(torch.linspace(-1, 1, 64), requires_grad=False)
    first.bn1 = torch.nn.Identity()
    found = []
    for changed in (False, True):
        model = convert(extractor, SIZE)
        model.reshape([1, *SIZE, 3])
        assert next(iter(found_in(model))).bias is not None
        assert not changed or in_bfloat16(model)
        sums = sums_before(joint(model, SIZE))
        found.append(made_by(sums, model, probe(100, SIZE)[None])[..., 2:-2, 2:-2])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=6e-4)


def test_an_engine_that_rounds_computes_such_a_backbone_by_one_graph(
    monkeypatch: pytest.MonkeyPatch, picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    """And finds what was rounded and compiled again, whichever form did it: the same is rounded in both."""
    parts: list[int] = []
    compile_backbone = openvino_engine.OpenVinoEngine._compile_backbone

    def counting(self: Any, given: Sequence[Any]) -> Any:
        parts.append(len(given))
        return compile_backbone(self, given)

    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "_compile_backbone", counting)
    extractor = backbone("resnet18", (1,))
    [expected] = extractor(torch.from_numpy(picture))
    errors, kept = [], []
    for rewrites in (True, False, True):
        engine = OpenVinoEngine("openvino-bfloat16", tmp_path, rewrites=rewrites)
        [found] = engine.backbone(extractor, SIZE)(torch.from_numpy(picture))
        errors.append(float((found - expected).pow(2).mean().sqrt() / expected.std()))
        files = {path.name: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
        kept.append((files, {path.name for path in tmp_path.rglob("*.blob")}))
    assert parts == [1, 2, 1]
    assert len(kept[0][0]) == 1
    assert kept[0][0] == kept[1][0] == kept[2][0]
    assert kept[1][1] == kept[2][1]
    assert max(errors) < 0.02
    if computes_bfloat16(torch.device("cpu")):
        assert errors[0] == errors[2] <= 1.1 * errors[1]
