"""The convolution of pixels by bfloat16: of numbers that it holds, and the same function."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.fastflow.engines import pick_engine
from flows.fastflow.features import FeatureExtractor
from flows.fastflow.rounding import nearest
from tests.flows.fastflow.untrained import weights

pytest.importorskip("openvino")

import openvino as ov
import openvino.opset13 as op

from flows.fastflow.engines import openvino_engine
from flows.fastflow.engines.openvino_backbone import convert
from flows.fastflow.engines.openvino_convolutions import found_in
from flows.fastflow.engines.openvino_split import joint
from flows.fastflow.engines.openvino_stem import make_exact

SIZE = (62, 96)
CORE = ov.Core()


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


def maps(model: Any, pictures: NDArray[np.uint8], numbers: str = "f32") -> list[NDArray[np.float32]]:
    compiled = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": numbers})
    found = compiled(pictures)
    return [found[i].copy() for i in range(len(compiled.outputs))]


def given_to(model: Any, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the first convolution takes."""
    port = next(iter(found_in(model))).node.input_value(0)
    [found] = maps(ov.Model([op.result(port)], model.get_parameters()).clone(), pictures)
    return found


@pytest.fixture
def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)


def held(values: NDArray[np.float32]) -> bool:
    """Whether bfloat16 holds all of them."""
    return bool((torch.from_numpy(values).bfloat16().float().numpy() == values).all())


@pytest.mark.parametrize("name", ["resnet18", "wide_resnet50_2"])
def test_it_is_of_numbers_that_bfloat16_holds_and_computes_the_same(
    name: str, picture: NDArray[np.uint8]
) -> None:
    """At the edge of the picture, too, where zeros are not what is taken off of pixels."""
    [expected] = maps(graph(name, (1,)), picture)
    model = graph(name, (1,))
    assert make_exact(CORE, model, SIZE)
    stem = next(iter(found_in(model)))
    assert torch.equal(nearest(stem.flat), stem.flat)
    # It would be rounded as a bias.
    assert stem.bias is None
    for value in (0, 255):
        assert held(given_to(model, np.full_like(picture, value)))
    assert held(given_to(model, picture))
    [found] = maps(model, picture)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_rounded_it_is_what_rounding_the_map_makes_of_it(picture: NDArray[np.uint8]) -> None:
    """As where graphs are parted: that is what the second part takes."""

    def first_map(model: Any, numbers: str) -> torch.Tensor:
        made = joint(model, SIZE)
        assert made is not None
        port = made.output(0)
        [found] = maps(ov.Model([op.result(port)], model.get_parameters()).clone(), picture, numbers)
        return torch.from_numpy(found)

    expected = first_map(graph("resnet18", (1,)), "f32").bfloat16().float()
    model = graph("resnet18", (1,))
    assert make_exact(CORE, model, SIZE)
    difference = (first_map(model, "bf16").bfloat16().float() - expected).abs()
    # A sum in another order may be rounded to the next number, of which there are 128 up to twice as much.
    assert float((difference > 0).float().mean()) < 0.02
    assert bool((difference <= expected.abs() / 64 + 1e-3).all())


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
    ],
)
def test_other_graphs_stay_as_they_are(name: str, out_indices: tuple[int, ...]) -> None:
    model = graph(name, out_indices)
    before = kinds(model)
    assert not make_exact(CORE, model, SIZE)
    assert kinds(model) == before


def _square_root(x: Any) -> Any:
    return op.sqrt(op.abs(x))


def _noise(x: Any) -> Any:
    return op.add(x, op.constant(np.random.default_rng(0).random((1, 3, *SIZE), np.float32)))


def _other_size(x: Any) -> Any:
    return op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2])


@pytest.mark.parametrize("change", [_square_root, _noise, _other_size])
def test_pixels_that_are_not_merely_normalised_stay(change: Any) -> None:
    model = graph("resnet18", (1,))
    port = next(iter(found_in(model))).node.input(0)
    port.replace_source_output(change(port.get_source_output()).output(0))
    model.validate_nodes_and_infer_types()
    before = kinds(model)
    assert not make_exact(CORE, model, SIZE)
    assert kinds(model) == before


def test_an_engine_that_rounds_computes_such_a_backbone_by_one_graph(
    monkeypatch: pytest.MonkeyPatch, picture: NDArray[np.uint8]
) -> None:
    parts: list[int] = []
    compile_backbone = openvino_engine.OpenVinoEngine._compile_backbone

    def counting(self: Any, given: Sequence[Any]) -> Any:
        parts.append(len(given))
        return compile_backbone(self, given)

    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "_compile_backbone", counting)
    errors = []
    for whole in (True, False):
        if not whole:
            monkeypatch.setattr(openvino_engine, "make_exact", lambda *_: False)
        engine = pick_engine("openvino-bfloat16", torch.device("cpu"))
        [found] = engine.backbone(backbone("resnet18", (1,)), SIZE)(torch.from_numpy(picture))
        [expected] = backbone("resnet18", (1,))(torch.from_numpy(picture))
        errors.append(float((found - expected).pow(2).mean().sqrt() / expected.std()))
    assert parts == [1, 2]
    exact, parted = errors
    assert exact <= 1.1 * parted
    assert exact < 0.02
