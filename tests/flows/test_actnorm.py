"""Activation normalisation, initialised by the first training batch."""

import pytest
import torch

from flows import ActNorm


@pytest.mark.parametrize("size", [(), (4, 5)])
def test_first_training_batch_is_standardised(size: tuple[int, ...]) -> None:
    layer = ActNorm(3).double().train()
    x = torch.randn(50, 3, *size, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.01]).view(
        3, *[1] * len(size)
    )
    z, log_det = layer.forward(x + 7)
    values = z.transpose(0, 1).flatten(1)
    assert values.mean(1).tolist() == pytest.approx(3 * [0], abs=1e-9)
    assert values.std(1, correction=0).tolist() == pytest.approx(3 * [1])
    positions = x[0, 0].numel()
    deviations = x.transpose(0, 1).flatten(1).std(1, correction=0)
    assert log_det[0].item() == pytest.approx(-positions * deviations.log().sum().item())


def initialised_by(x: torch.Tensor) -> ActNorm:
    layer = ActNorm(x.shape[1]).to(x).train()
    layer.forward(x)
    return layer.eval()


@pytest.mark.parametrize("size", [(), (2, 3)])
def test_actnorm_matches_formula(size: tuple[int, ...]) -> None:
    layer = initialised_by(3 + 2 * torch.randn(20, 4, *size, dtype=torch.float64))
    torch.nn.init.normal_(layer.log_scale)
    torch.nn.init.normal_(layer.shift)
    x = torch.randn(5, 4, *size, dtype=torch.float64)
    m, s, t = (p.view(4, *[1] * len(size)) for p in (layer.center, layer.log_scale, layer.shift))
    z, log_det = layer.forward(x)
    torch.testing.assert_close(z, s.exp() * (x - m) + t)
    back, log_det_back = layer.inverse(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det, -log_det_back)
    torch.testing.assert_close(log_det, (x[0, 0].numel() * layer.log_scale.sum()).expand(5))


def test_constant_channel_keeps_its_scale() -> None:
    layer = ActNorm(2).train()
    x = torch.stack([torch.full((9,), 4.0), torch.arange(9.0)], 1)
    z, _ = layer.forward(x)
    assert z[:, 0].tolist() == 9 * [0]
    assert layer.log_scale[0].item() == 0


def test_first_batch_of_one_value_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"expected a first training batch of several values.*got \(1, 2\)"):
        ActNorm(2).train().forward(torch.zeros(1, 2))


def test_non_finite_first_batch_is_rejected() -> None:
    layer = ActNorm(2).train()
    with pytest.raises(ValueError, match="expected a first training batch of finite values"):
        layer.forward(torch.tensor([[1.0, 2.0], [torch.nan, 3.0]]))
    assert not layer.initialised
    assert layer.shift.isfinite().all()
