"""Maps pass from a backbone to heads in bfloat16: each number as the nearest one, and without a copy."""

from typing import Any

import numpy as np
import pytest
import torch

from flows.fastflow.engines import pick_engine
from flows.fastflow.features import FeatureExtractor
from tests.flows.fastflow.untrained import weights

pytest.importorskip("openvino")

import openvino as ov
import openvino.opset13 as op

from flows.fastflow.engines.openvino_engine import OpenVinoEngine
from flows.fastflow.engines.openvino_maps import (
    bits_of,
    channels_first,
    channels_last,
    hand_over,
    maps_of,
    mean_over_positions,
    taken_over,
)
from flows.fastflow.engines.openvino_parts import data_of, shared

CORE = ov.Core()


def compiled(model: Any, precision: str = "f32") -> Any:
    return CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})


def halves(sides: tuple[int, ...]) -> Any:
    """A graph of two maps and one other output, none of which a convolution gives."""
    x = op.parameter(list(sides), np.float32)
    return ov.Model([op.result(op.multiply(x, op.constant(np.float32(k)))) for k in (1, 0.5, 3)], [x])


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_maps_leave_as_the_nearest_numbers_with_channels_last(precision: str) -> None:
    """Half way between two, to the even one; what is no map leaves as it was."""
    x = torch.randn((1, 5, 4, 3), generator=torch.Generator().manual_seed(0))
    x[0, 0, 0] = torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8, -(1 + 2.0**-8)])
    x = x.bfloat16().float() if precision == "bf16" else x  # what it does on the way in is its own affair
    request = compiled(hand_over(halves(tuple(x.shape)), 2), precision).create_infer_request()
    request.infer([x.numpy()])
    first, second, other = (data_of(request.get_output_tensor(i)) for i in range(3))
    assert first.shape == second.shape == (1, 4, 3, 5)
    assert torch.equal(maps_of(first), x.bfloat16())
    assert torch.equal(maps_of(second), (0.5 * x).bfloat16())
    assert other.shape == x.shape
    torch.testing.assert_close(torch.from_numpy(other.copy()), 3 * x, rtol=2**-8, atol=0)


def test_what_was_handed_over_is_not_copied() -> None:
    bits = np.arange(2 * 4 * 3 * 5, dtype=np.uint16).reshape(2, 4, 3, 5)
    maps = maps_of(bits)
    assert maps.shape == (2, 5, 4, 3)
    assert np.shares_memory(bits_of(maps), bits)
    assert np.shares_memory(bits_of(maps[1:]), bits)
    assert np.shares_memory(data_of(shared(bits)), bits)
    assert np.array_equal(data_of(shared(bits)), bits)


@pytest.mark.parametrize("laid_out", [torch.contiguous_format, torch.channels_last])
def test_maps_from_elsewhere_are_rounded(laid_out: torch.memory_format) -> None:
    x = torch.randn((2, 3, 5, 4)).to(memory_format=laid_out)
    for given in (x, x[:1].expand(4, -1, -1, -1)):
        assert torch.equal(maps_of(bits_of(given)), given.bfloat16())


def test_a_graph_takes_over_what_another_hands_over() -> None:
    x = torch.randn((2, 3, 5, 4))
    given, maps = taken_over((2, 3, 5, 4))
    request = compiled(ov.Model([op.result(channels_first(maps))], [given])).create_infer_request()
    request.set_input_tensor(shared(bits := bits_of(x)))
    request.infer()
    found = torch.from_numpy(request.get_output_tensor(0).data.copy())
    assert torch.equal(found, maps_of(bits).float())
    assert torch.equal(found, x.bfloat16().float())


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_means_have_the_digits_of_float32(precision: str) -> None:
    """Of many numbers, which in bfloat16 would stop to add up."""
    x = (1 + torch.rand((2, 3, 64, 60), generator=torch.Generator().manual_seed(0))).bfloat16().float()
    given = op.parameter(list(x.shape), np.float32)
    model = ov.Model([op.result(mean_over_positions(channels_last(given)))], [given])
    [found] = compiled(model, precision)([x.numpy()]).values()
    torch.testing.assert_close(torch.from_numpy(found.copy()), x.mean((2, 3)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("stages", [(1, 2), (0, 3)])
def test_a_backbones_maps_go_to_its_heads_as_they_are(stages: tuple[int, ...]) -> None:
    """Those of the part that stays in float32 too."""
    extractor = FeatureExtractor(weights(name="test_efficientnet"), stages, (64, 96))
    images = torch.randint(0, 256, (3, 64, 96, 3), dtype=torch.uint8)
    engine = pick_engine("openvino-bfloat16", torch.device("cpu"))
    assert isinstance(engine, OpenVinoEngine)
    for m in engine.backbone(extractor, (64, 96))(images):
        assert m.dtype == torch.bfloat16
        taken = engine.as_taken(m)
        assert taken.dtype == np.uint16
        assert np.shares_memory(taken, m.view(torch.uint16).numpy())
        assert torch.equal(maps_of(taken), m)
    exact = OpenVinoEngine("float32")
    for m in exact.backbone(extractor, (64, 96))(images):
        assert np.shares_memory(exact.as_taken(m), m.numpy())
