"""The fast forward pass is the plain one: values, log-determinants and gradients."""

import math
from typing import cast

import pytest
import torch
from torch import Tensor

from flows import Compose
from flows.fastflow.config import FlowConfig
from flows.fastflow.model import alternating, convolution
from flows.fastflow.model.fastflow import FastFlow


def flow(channels: int, seed: int = 0, **settings: object) -> Compose:
    torch.manual_seed(seed)
    made = FastFlow((channels,), FlowConfig.model_validate({"steps": 5, **settings})).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return cast(Compose, made.scales[0])


def picture(channels: int, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    x = torch.randn(3, channels, 5, 4, dtype=torch.float64)
    return x.to(memory_format=torch.channels_last).requires_grad_()


def found(of: Compose, x: Tensor, weight: Tensor, *, fast: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
    z, log_det = alternating.forward(of, x) if fast else of.forward(x)
    loss = (z * weight).sum() + log_det.square().sum()
    return z, log_det, list(torch.autograd.grad(loss, [x, *of.parameters()]))


@pytest.mark.parametrize(("channels", "steps"), [(2, 1), (3, 2), (8, 2), (7, 5)])
@pytest.mark.parametrize("kernels", ["3-1", "3", "depthwise-5"])
def test_it_is_the_plain_pass(channels: int, steps: int, kernels: str) -> None:
    of, x = flow(channels, steps=steps, kernels=kernels), picture(channels)
    assert alternating.is_alternating(of)
    weight = torch.randn_like(x)
    plain, fast = found(of, x, weight, fast=False), found(of, x, weight, fast=True)
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(fast[1], plain[1], rtol=1e-11, atol=1e-11)
    assert fast[1].shape == (3,)
    for mine, theirs in zip(fast[2], plain[2], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernels", ["3-1", "depthwise-5"])
def test_bfloat16_gradients_are_near_float32_gradients(kernels: str) -> None:
    of, x = flow(32, kernels=kernels).float(), picture(32).detach().float()
    parameters = list(of.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.mul_(0.15)  # as small as those of a flow that is being fitted
    gradients = []
    for bfloat16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            z, log_det = alternating.forward(of, x)
        loss = z.square().mean() - log_det.mean() / x[0].numel()
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    exact, rounded = gradients
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.99


@pytest.mark.parametrize("kernels", ["3-1", "depthwise-5"])
def test_autocast_keeps_law_and_log_determinant_in_float32(kernels: str) -> None:
    of, x = flow(8, kernels=kernels).float(), picture(8).detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        z, log_det = alternating.forward(of, x)
    assert (z.dtype, log_det.dtype) == (torch.float32, torch.float32)
    for gradient in torch.autograd.grad(z.square().sum() - log_det.sum(), list(of.parameters())):
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all()


def test_model_of_alternating_halves_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    real = alternating.forward

    def watched(of: Compose, x: Tensor) -> tuple[Tensor, Tensor]:
        taken.append(x.shape[1])
        return real(of, x)

    monkeypatch.setattr(alternating, "forward", watched)
    x = [torch.randn(1, 4, 2, 2), torch.randn(1, 6, 1, 1)]
    FastFlow((4, 6), FlowConfig(steps=2))(x)
    assert taken == [4, 6]
    FastFlow((4, 6), FlowConfig(steps=2, permutation="index"))(x)
    assert taken == [4, 6]


def test_other_flows_do_not_alternate() -> None:
    assert not alternating.is_alternating(flow(4, permutation="index"))
    of = flow(4)
    assert not alternating.is_alternating(
        Compose(list(cast(list[Compose], of.transforms))[1:])
    )  # no reordering
    steps = list(cast(list[Compose], of.transforms))
    assert not alternating.is_alternating(Compose([steps[0], *steps[3:]]))  # begins with the other half
    assert not alternating.is_alternating(Compose(steps[:2]))  # a coupling without its affine


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("side", "channels", "size"), [(5, 2, (1, 1)), (7, 160, (2, 3)), (5, 160, (33, 32))])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blockwise_gradient_equals_depthwise_gradient(
    precision: torch.dtype, side: int, channels: int, size: tuple[int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x, of_y = (torch.randn(2, channels, *size).to(precision).to(memory_format=layout) for _ in range(2))
    weight = torch.randn(channels, 1, side, side).to(precision)
    of_x, of_weight, of_bias = convolution.convolve_backward(of_y, x, weight, with_input=True)
    exact_x, exact = x.double().requires_grad_(), weight.double().requires_grad_()
    y = torch.nn.functional.conv2d(exact_x, exact, padding=side // 2, groups=channels)
    expected = torch.autograd.grad(y, [exact_x, exact], of_y.double())
    near = 1e-5 if precision == torch.float32 else 2e-2
    for mine, theirs in zip((of_x, of_weight), expected, strict=True):
        assert mine.dtype == precision
        torch.testing.assert_close(mine.double(), theirs, rtol=near, atol=near * float(theirs.abs().max()))
    torch.testing.assert_close(
        of_bias.double(), of_y.double().sum((0, 2, 3)), rtol=near, atol=near * math.sqrt(of_y.numel())
    )
