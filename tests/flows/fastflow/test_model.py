"""The flows of FastFlow: counts, structure, likelihood, and the way back."""

import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from flows import ChannelAffine, Compose, ConvNet, Coupling, Halves, Permutation
from flows.fastflow.model import FastFlow, FlowConfig
from tests.flows.contract import jacobian

RESNET18, WIDE_RESNET50 = (64, 128, 256), (256, 512, 1024)


def config(**values: object) -> FlowConfig:
    """The published settings but for what is named."""
    published = {"steps": 8, "hidden_ratio": 1.0, "hidden_limit": None, "permutation": "index"}
    return FlowConfig.model_validate({**published, **values})


def count(channels: Sequence[int], settings: FlowConfig) -> int:
    """Trained parameters, without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in FastFlow(channels, settings).parameters())


@pytest.mark.parametrize("permutation", ["index", "halves"])
@pytest.mark.parametrize("shape", [(1, 8, 4, 4), (1, 5, 4, 4), (1, 6, 4)])
def test_maps_of_other_channels_are_refused_in_both_directions(
    permutation: str, shape: tuple[int, ...]
) -> None:
    model = FastFlow((6,), config(steps=2, permutation=permutation))
    for direction in (model.forward, model.inverse):
        with pytest.raises(ValueError, match=r"expected shape \(N, \S+, H, W\)|expected .*\(N, 6"):
            direction([torch.zeros(shape)])


def randomised(channels: Sequence[int], settings: FlowConfig, seed: int = 0, spread: float = 0.2) -> FastFlow:
    """A model in double precision with random parameters."""
    torch.manual_seed(seed)
    model = FastFlow(channels, settings, seed=seed).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, spread)
    return model


def couplings(model: FastFlow, scale: int = 0) -> list[Coupling]:
    """The coupling layers of a scale."""
    transforms = cast(Compose, model.scales[scale]).transforms
    return [t for t in transforms if isinstance(t, Coupling)]


@pytest.mark.parametrize("permutation", ["index", "halves"])
@pytest.mark.parametrize(
    ("channels", "kernels", "expected"),
    [(RESNET18, "3", 4_657_408), (RESNET18, "3-1", 2_593_024), (WIDE_RESNET50, "3-1", 41_337_856)],
)
def test_parameters_count_as_published(
    channels: Sequence[int], kernels: str, expected: int, permutation: str
) -> None:
    """2.7 M, 4.9 M and 41.3 M in the paper, which counts the layer norms that ours does not train."""
    assert count(channels, config(kernels=kernels, permutation=permutation)) == expected


@pytest.mark.parametrize(
    ("c", "steps", "kernels", "ratio", "limit", "permutation"),
    [
        *itertools.product(
            [2, 3, 41],
            [1, 2, 5],
            ["3", "3-1", "depthwise-5"],
            [0.16, 1.0, 2.5],
            [None, 1, 8, 64],
            ["index", "halves"],
        )
    ],
)
def test_parameters_count_as_the_formula_says(
    c: int, steps: int, kernels: str, ratio: float, limit: int | None, permutation: str
) -> None:
    """Per step c1 h k^2 + h + h 2 c2 k^2 + 2 c2, and 2 C of the global affine; h = c1 ratio within limits.

    A depthwise convolution adds h 5^2 + h.
    """
    expected = 0
    for step in range(steps):
        c1, c2 = (c + 1) // 2, c // 2
        if permutation == "halves" and step % 2:
            c1, c2 = c2, c1
        k = 1 if kernels == "depthwise-5" or (kernels == "3-1" and step % 2) else 3
        h = max(1, min(int(c1 * ratio), limit or 10**9))
        expected += c1 * h * k**2 + h + h * 2 * c2 * k**2 + 2 * c2 + 2 * c
        expected += h * 5**2 + h if kernels == "depthwise-5" else 0
    settings = config(
        steps=steps, kernels=kernels, hidden_ratio=ratio, hidden_limit=limit, permutation=permutation
    )
    assert count([c], settings) == expected


@pytest.mark.parametrize("channels", [2, 5, 40])
def test_halves_take_turns(channels: int) -> None:
    model = FastFlow([channels], config(steps=4, permutation="halves"))
    transforms = list(cast(Compose, model.scales[0]).transforms)
    first, rest = transforms[0], transforms[1:]
    assert isinstance(first, Permutation)
    assert [type(t) for t in rest] == [Coupling, ChannelAffine] * 4
    large, small = (channels + 1) // 2, channels // 2
    changed = []
    for step, layer in enumerate(couplings(model)):
        assert cast(Halves, layer.partition).swapped == (step % 2 == 1)
        assert layer.partition.transformed == (large if step % 2 else small)
        marks = torch.arange(float(channels))[None]
        changed.append(set(layer.partition.split(marks)[1][0].tolist()))
    for one, two in itertools.pairwise(changed):
        assert one | two == set(range(channels))
        assert not one & two


def test_a_permutation_follows_each_step_where_halves_do_not_turn() -> None:
    model = FastFlow([6], config(steps=3, permutation="index"))
    kinds = [type(t) for t in cast(Compose, model.scales[0]).transforms]
    assert kinds == [Coupling, ChannelAffine, Permutation] * 3
    assert not any(cast(Halves, layer.partition).swapped for layer in couplings(model))


@pytest.mark.parametrize(("kernels", "expected"), [("3", [3, 3, 3, 3]), ("3-1", [3, 1, 3, 1])])
def test_kernels_alternate(kernels: str, expected: list[int]) -> None:
    model = FastFlow([6], config(steps=4, kernels=kernels))
    networks = [cast(ConvNet, layer.conditioner) for layer in couplings(model)]
    assert [n.first.kernel_size[0] for n in networks] == expected
    assert [n.last.kernel_size[0] for n in networks] == expected


def test_the_seed_fixes_the_permutations_and_scales_have_their_own() -> None:
    def orders(seed: int) -> list[list[int]]:
        model = FastFlow([40, 40], config(steps=1), seed=seed)
        return [m.index.tolist() for m in model.modules() if isinstance(m, Permutation)]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]


@pytest.mark.parametrize("permutation", ["index", "halves"])
def test_fresh_flows_only_reorder_channels(permutation: str) -> None:
    model = FastFlow([5, 4], config(permutation=permutation))
    features = [torch.randn(2, 5, 4, 3), torch.randn(2, 4, 2, 2)]
    latents, log_dets = model(features)
    for x, z, log_det in zip(features, latents, log_dets, strict=True):
        assert torch.equal(z.sort(1).values, x.sort(1).values)
        assert log_det.tolist() == [0, 0]
    for x, nll in zip(features, model.nll(features), strict=True):
        expected = 0.5 * x.square().mean() + 0.5 * np.log(2 * np.pi)
        assert nll.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("permutation", ["index", "halves"])
def test_nll_is_what_an_independent_computation_gives(permutation: str) -> None:
    """-log p(x) / D with the Jacobian's determinant found by elimination, averaged over the batch."""
    model = randomised((3, 2), config(steps=3, permutation=permutation))
    features = [torch.randn(2, 3, 2, 2, dtype=torch.float64), torch.randn(2, 2, 1, 3, dtype=torch.float64)]
    with torch.no_grad():
        latents, _ = model(features)
    for i, (x, z) in enumerate(zip(features, latents, strict=True)):
        scale, size = cast(Compose, model.scales[i]), x[0].numel()
        total = 0.0
        for row, matrix in enumerate(jacobian(scale.forward, x).numpy()):
            energy = 0.5 * float((z[row] ** 2).sum()) + 0.5 * size * np.log(2 * np.pi)
            total += energy - float(np.linalg.slogdet(matrix)[1])
        assert model.nll(features)[i].item() == pytest.approx(total / 2 / size, rel=1e-10)


def test_a_concentrated_density_has_a_negative_loss() -> None:
    model = FastFlow([2], config(steps=1)).double()
    affine = next(m for m in model.modules() if isinstance(m, ChannelAffine))
    torch.nn.init.constant_(affine.log_scale, 5.0)
    [nll] = model.nll([torch.zeros(1, 2, 3, 3, dtype=torch.float64)])
    assert nll.item() == pytest.approx(0.5 * np.log(2 * np.pi) - 5)


def test_the_loss_reads_the_same_at_every_resolution() -> None:
    model = FastFlow([4], config(steps=1))
    small = model.nll([torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))])
    large = model.nll([torch.randn(8, 4, 64, 64, generator=torch.Generator().manual_seed(1))])
    assert small[0].item() == pytest.approx(1.419, abs=0.05)
    assert large[0].item() == pytest.approx(1.419, abs=0.01)


@pytest.mark.parametrize("permutation", ["index", "halves"])
@pytest.mark.parametrize("kernels", ["3", "3-1", "depthwise-5"])
@pytest.mark.parametrize("channels", [(5, 4), (3,), (8, 7, 2)])
def test_it_comes_back_with_random_parameters(
    channels: Sequence[int], kernels: str, permutation: str
) -> None:
    model = randomised(channels, config(kernels=kernels, permutation=permutation))
    features = [torch.randn(2, c, 4 + i, 3, dtype=torch.float64) for i, c in enumerate(channels)]
    latents, log_dets = model(features)
    back, undone = model.inverse(latents)
    for x, y, there, again in zip(features, back, log_dets, undone, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(there, -again, rtol=1e-8, atol=1e-8)


def test_another_number_of_scales_is_refused() -> None:
    model = FastFlow([4, 6], config(steps=1))
    for call in (model, model.inverse, model.nll):
        with pytest.raises(ValueError, match=r"expected 2 scales with \(4, 6\) channels; got 1"):
            call([torch.zeros(1, 4, 2, 2)])
    with pytest.raises(ValueError, match=r"expected shape \(N, 6\)"):
        model([torch.zeros(1, 4, 2, 2), torch.zeros(1, 5, 2, 2)])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"steps": 0}, "greater than or equal to 1"),
        ({"steps": 65}, "less than or equal to 64"),
        ({"steps": 1.5}, "valid integer"),
        ({"kernels": "5"}, "'3-1', '3' or 'depthwise-5'"),
        ({"hidden_ratio": 0}, "greater than 0"),
        ({"hidden_ratio": float("nan")}, "hidden_ratio"),
        ({"hidden_ratio": 9}, "less than or equal to 8"),
        ({"hidden_limit": 0}, "greater than or equal to 1"),
        ({"clamp": 0}, "greater than 0"),
        ({"clamp": 21}, "less than or equal to 20"),
        ({"clamp_formula": "c*tanh(0.1*a)"}, r"c\*tanh\(a/c\)"),
        ({"permutation": "matrix"}, "'index' or 'halves'"),
        ({"step": 8}, "Extra inputs are not permitted"),
    ],
)
def test_a_config_out_of_range_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        FlowConfig.model_validate(values)


def test_a_config_survives_json_and_cannot_be_changed() -> None:
    one = config(kernels="3", clamp=1.5)
    assert FlowConfig.model_validate_json(one.model_dump_json()) == one
    with pytest.raises(ValidationError, match="frozen"):
        one.steps = 3  # type: ignore[misc]


def test_gradients_reach_every_parameter() -> None:
    # Wide enough that some of the hidden channels are above zero somewhere.
    model = FastFlow([25, 20], config(steps=4, permutation="halves"))
    features: list[Tensor] = [torch.randn(2, 25, 4, 4), torch.randn(2, 20, 2, 2)]
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):  # behind a last layer at zero, the first learns only from the second step on
        optimiser.zero_grad()
        torch.autograd.backward(torch.stack(model.nll(features)).sum())
        optimiser.step()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_flows_of_before_depthwise_kernels_are_what_they_were() -> None:
    """As a bundle of then has them in its manifest and in its file of weights."""
    recorded = {
        "steps": 2,
        "kernels": "3-1",
        "hidden_ratio": 1.0,
        "hidden_limit": 64,
        "clamp": 2.0,
        "clamp_formula": "c*tanh(a/c)",
        "permutation": "halves",
    }
    model = FastFlow([5], FlowConfig.model_validate(recorded))
    expected: dict[str, tuple[int, ...]] = {"scales.0.transforms.0.index": (5,)}
    for coupling, (in_, out, side) in {1: (3, 4, 3), 3: (2, 6, 1)}.items():
        expected |= {
            f"scales.0.transforms.{coupling}.conditioner.first.weight": (in_, in_, side, side),
            f"scales.0.transforms.{coupling}.conditioner.first.bias": (in_,),
            f"scales.0.transforms.{coupling}.conditioner.last.weight": (out, in_, side, side),
            f"scales.0.transforms.{coupling}.conditioner.last.bias": (out,),
            f"scales.0.transforms.{coupling + 1}.log_scale": (5,),
            f"scales.0.transforms.{coupling + 1}.shift": (5,),
        }
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected
