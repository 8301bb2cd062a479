"""3x3 convolutions by tiles: the same numbers, where they take less time, and nothing else touched."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flows.fastflow.features import FeatureExtractor
from flows.fastflow.rounding import probe
from tests.flows.fastflow.untrained import weights

pytest.importorskip("openvino")

import openvino as ov
import openvino.opset13 as op

from flows.fastflow.engines import openvino_winograd
from flows.fastflow.engines.openvino_backbone import convert
from flows.fastflow.engines.openvino_winograd import rewrite

CORE = ov.Core()
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


def graph_of(layer: nn.Conv2d, size: tuple[int, int], bias: Tensor | None = None) -> ov.Model:
    """A convolution, and a bias of its own for what comes out."""
    given = op.parameter([1, layer.in_channels, *size], np.float32)
    padding, stride, dilation = layer.padding, layer.stride, layer.dilation
    assert not isinstance(padding, str)
    weight = op.constant(layer.weight.detach().numpy())
    found = op.convolution(given, weight, list(stride), list(padding), list(padding), list(dilation))
    if bias is not None:
        found = op.add(found, op.constant(bias.view(1, -1, 1, 1).numpy()))
    return ov.Model([op.result(found)], [given])


def compute(model: Any, given: NDArray[Any]) -> list[NDArray[np.float32]]:
    """The outputs."""
    compiled = CORE.compile_model(model, "CPU", EXACT)
    found = compiled(given)
    return [found[i].copy() for i in range(len(compiled.outputs))]


def kinds(model: Any) -> Counter[str]:
    """How many operations there are of each kind."""
    return Counter(node.get_type_name() for node in model.get_ops())


def layer_of(channels: int, out: int, **settings: Any) -> nn.Conv2d:
    """A convolution with weights of chance."""
    torch.manual_seed(0)
    return nn.Conv2d(channels, out, **{"kernel_size": 3, "padding": 1, **settings}, bias=False)


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with vectors of 256 bits, as far as torch says."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.fixture
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps, too, which take longer by tiles."""
    monkeypatch.setattr(openvino_winograd, "_FEWEST_TILES", 1)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (4, 4), (5, 3), (8, 12), (15, 18)])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.usefixtures("of_any_size")
def test_any_size_and_number_of_channels(size: tuple[int, int], has_bias: bool) -> None:
    layer, x = layer_of(50, 70), torch.randn(1, 50, *size, generator=torch.Generator().manual_seed(1))
    bias = torch.randn(70, generator=torch.Generator().manual_seed(2)) if has_bias else None
    model = graph_of(layer, size, bias)
    assert rewrite(model) == 1
    assert not kinds(model)["Convolution"]
    expected = torch.conv2d(x.double(), layer.weight.double(), padding=1)
    if bias is not None:
        expected = expected + bias.double().view(1, -1, 1, 1)
    [found] = compute(model, x.numpy())
    torch.testing.assert_close(torch.from_numpy(found).double(), expected, rtol=0, atol=5e-5)


@pytest.mark.usefixtures("of_any_size")
def test_weights_that_tell_every_place_apart() -> None:
    """One that moves the map by a place must move it that way, on every edge."""
    for i in range(3):
        for j in range(3):
            layer, x = layer_of(56, 56), torch.arange(56 * 6 * 7.0).view(1, 56, 6, 7) / 1000
            layer.weight.data.zero_()
            layer.weight.data[torch.arange(56), torch.arange(56), i, j] = 1
            model = graph_of(layer, (6, 7))
            assert rewrite(model) == 1
            moved = torch.nn.functional.pad(x, (1, 1, 1, 1))[:, :, i : i + 6, j : j + 7]
            np.testing.assert_allclose(compute(model, x.numpy())[0], moved.numpy(), atol=2e-5)


@pytest.mark.parametrize(
    ("channels", "out", "settings"),
    [
        (64, 64, {"stride": 2}),
        (64, 64, {"stride": (1, 2)}),
        (64, 64, {"dilation": 2, "padding": 2}),
        (64, 64, {"dilation": 2}),
        (64, 64, {"padding": 0}),
        (64, 64, {"padding": (1, 0)}),
        (64, 64, {"kernel_size": 1, "padding": 0}),
        (64, 64, {"kernel_size": 5, "padding": 2}),
        (64, 64, {"kernel_size": (3, 1), "padding": 1}),
        # Moving numbers about would take longer than is gained.
        (3, 64, {}),
        (48, 48, {}),
        (512, 24, {}),
    ],
)
def test_what_does_not_fit_or_gains_nothing_stays(channels: int, out: int, settings: dict[str, Any]) -> None:
    model = graph_of(layer_of(channels, out, **settings), (12, 12))
    before = kinds(model)
    assert rewrite(model) == 0
    assert kinds(model) == before


def test_groups_stay() -> None:
    given = op.parameter([1, 128, 12, 12], np.float32)
    weight = op.constant(np.ones((2, 64, 64, 3, 3), np.float32))
    found = op.group_convolution(given, weight, [1, 1], [1, 1], [1, 1], [1, 1])
    model = ov.Model([op.result(found)], [given])
    assert rewrite(model) == 0
    assert kinds(model)["GroupConvolution"] == 1


def test_weights_that_come_in_stay() -> None:
    given, weight = op.parameter([1, 64, 12, 12], np.float32), op.parameter([64, 64, 3, 3], np.float32)
    found = op.convolution(given, weight, [1, 1], [1, 1], [1, 1], [1, 1])
    model = ov.Model([op.result(found)], [given, weight])
    assert rewrite(model) == 0
    assert kinds(model)["Convolution"] == 1


@pytest.mark.parametrize(("size", "tiled"), [((12, 12), 1), ((9, 11), 1), ((8, 16), 0), ((33, 4), 1)])
def test_maps_of_few_tiles_stay(size: tuple[int, int], tiled: int) -> None:
    assert rewrite(graph_of(layer_of(64, 64), size)) == tiled


@pytest.mark.parametrize(("capability", "fewest"), [("AVX2", 56), ("AVX512", 112), ("SVE256", 56)])
def test_convolutions_of_few_channels_stay(
    monkeypatch: pytest.MonkeyPatch, capability: str, fewest: int
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert rewrite(graph_of(layer_of(fewest, fewest), (12, 12))) == 1
    # Their harmonic mean counts.
    assert rewrite(graph_of(layer_of(fewest - 6, fewest + 4), (12, 12))) == 0


@pytest.mark.parametrize("shape", [[2, 64, 12, 12], [-1, 64, 12, 12], [1, 64, -1, 12], [1, 64, 12, -1]])
def test_several_pictures_and_sizes_that_are_open_stay(shape: list[int]) -> None:
    model = graph_of(layer_of(64, 64), (12, 12))
    model.reshape(shape)
    before = kinds(model)
    assert rewrite(model) == 0
    assert kinds(model) == before


def test_what_is_no_map_any_more_stays_beside_it() -> None:
    """A factor of 1 that adds a dimension, and one that is no 1."""
    given = op.parameter([1, 64, 12, 12], np.float32)
    weight = op.constant(np.ones((64, 64, 3, 3), np.float32))
    found = op.convolution(given, weight, [1, 1], [1, 1], [1, 1], [1, 1])
    deeper = op.multiply(op.constant(np.ones((1, 1, 1, 1, 1), np.float32)), found)
    doubled = op.multiply(op.constant(np.float32(2)), found)
    model = ov.Model([op.result(deeper), op.result(doubled)], [given])
    x = np.random.default_rng(0).standard_normal((1, 64, 12, 12)).astype(np.float32)
    expected = compute(model, x)
    assert rewrite(model) == 1
    for a, b in zip(compute(model, x), expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


@pytest.mark.usefixtures("of_any_size")
def test_a_map_that_several_take() -> None:
    """The convolution's own map goes out; it is joined to others, flat and not, and convolved again."""
    torch.manual_seed(0)
    weight = torch.randn(64, 64, 3, 3) / 24
    given = op.parameter([1, 64, 9, 8], np.float32)
    convolve = [[1, 1]] * 4
    first = op.convolution(given, op.constant(weight.numpy()), *convolve)
    joined = op.relu(op.add(first, given))
    second = op.convolution(joined, op.constant(weight.numpy()), *convolve)
    # One of another shape, and a sum of which neither is a map.
    scaled = op.add(second, op.constant(np.ones((1, 1, 1, 1), np.float32)))
    pooled = op.reduce_mean(op.add(joined, second), op.constant([2, 3]), True)
    results = [op.result(x) for x in (first, joined, scaled, pooled)]
    model = ov.Model(results, [given])
    x = torch.randn(1, 64, 9, 8)
    expected = compute(model, x.numpy())
    assert rewrite(model) == 2
    assert not kinds(model)["Convolution"]
    for a, b in zip(compute(model, x.numpy()), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize(
    ("name", "out_indices", "size", "tiled"),
    [
        # Sums of two maps, each of its own convolution; strided ones between.
        ("resnet10t", (1, 2, 3), (64, 96), 2),
        ("resnet10t", (1, 2, 3), (192, 128), 3),
        # Sides of maps that no tile divides.
        ("resnet10t", (1, 2, 3), (152, 200), 4),
        # Products of channels between them.
        ("resnet26", (1, 2), (96, 96), 3),
        # Biases before normalisations.
        ("vgg11_bn", (2, 3), (96, 96), 5),
        # None that gains.
        ("test_efficientnet", (2, 3), (64, 64), 0),
    ],
)
def test_backbones_compute_the_same(
    name: str, out_indices: tuple[int, ...], size: tuple[int, int], tiled: int
) -> None:
    model = convert(FeatureExtractor(weights(name=name), out_indices, size), size)
    model.reshape([1, *size, 3])
    before = compute(model, probe(0, size)[None])
    convolutions = kinds(model)["Convolution"]
    assert rewrite(model) == tiled
    assert kinds(model)["Convolution"] == convolutions - tiled
    for a, b in zip(compute(model, probe(0, size)[None]), before, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


def test_maps_are_turned_no_more_often_than_they_need_be() -> None:
    """Two blocks in a row, with their sums: once at the beginning, and once for the map that goes out."""
    model = convert(FeatureExtractor(weights(name="resnet18"), (1,), (64, 64)), (64, 64))
    model.reshape([1, 64, 64, 3])
    before = kinds(model)["Transpose"]
    assert rewrite(model) == 4
    # Those of a tile's own parts are of more dimensions than a map.
    of_maps = [
        node
        for node in model.get_ops()
        if node.get_type_name() == "Transpose" and len(node.get_output_partial_shape(0)) == 4
    ]
    assert len(of_maps) == before + 2
