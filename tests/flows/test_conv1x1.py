"""The invertible 1x1 convolution."""

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flows import InvertibleConv1x1


def weight(layer: InvertibleConv1x1) -> torch.Tensor:
    """W, read off from what the layer does to the axes."""
    return layer.forward(torch.eye(len(layer.sign), dtype=layer.lower.dtype))[0].T.detach()


def test_it_starts_as_a_rotation_that_is_drawn_anew() -> None:
    one, two = (weight(InvertibleConv1x1(5).double()) for _ in range(2))
    torch.testing.assert_close(one @ one.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-6)
    assert not torch.allclose(one, two)


def test_both_signs_of_the_determinant_come_up() -> None:
    torch.manual_seed(0)
    signs = [torch.linalg.det(weight(InvertibleConv1x1(3))).sign().item() for _ in range(60)]
    assert 15 < signs.count(1.0) < 45


def test_it_is_a_convolution_with_one_matrix() -> None:
    torch.manual_seed(1)
    layer = InvertibleConv1x1(4).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    w = weight(layer)
    torch.testing.assert_close(layer.forward(x)[0], conv2d(x, w[:, :, None, None]))
    assert layer.forward(x)[1].tolist() == pytest.approx(2 * [15 * torch.linalg.slogdet(w)[1].item()])
    np.testing.assert_allclose(layer.inverse(x)[0][0, :, 1, 2].detach(), np.linalg.solve(w, x[0, :, 1, 2]))


def test_what_lies_in_the_other_triangles_does_not_count() -> None:
    """Optimisers and weight decay may write there."""
    layer = InvertibleConv1x1(4).double()
    before = weight(layer)
    with torch.no_grad():
        layer.lower.add_(torch.ones(4, 4).triu())
        layer.upper.add_(torch.ones(4, 4).tril())
    assert torch.equal(weight(layer), before)


def test_half_precision_has_an_inverse() -> None:
    layer = InvertibleConv1x1(4).bfloat16()
    x = torch.randn(2, 4, 3, 3).bfloat16()
    back, log_det = layer.inverse(layer.forward(x)[0])
    assert back.dtype == log_det.dtype == torch.bfloat16
    torch.testing.assert_close(back, x, rtol=0.1, atol=0.1)


def test_autocast_leaves_it_the_inverse_of_what_it_did() -> None:
    layer = InvertibleConv1x1(6)
    x = torch.randn(2, 6, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, _ = layer.forward(x)
        back, _ = layer.inverse(z)
    assert z.dtype == torch.float32
    torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-5)


def test_an_average_of_models_is_loaded_if_its_buffers_were_copied() -> None:
    """Averaged too, 3 becomes 2.99... and then 2: W would mix one channel in twice, and another never."""
    torch.manual_seed(0)
    layer = InvertibleConv1x1(6)
    average = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]
    for averaged in (False, True):
        model = AveragedModel(layer, multi_avg_fn=average, use_buffers=averaged)
        for _ in range(20):
            model.update_parameters(layer)
        state = model.module.state_dict()
        other = InvertibleConv1x1(6)
        if averaged:
            with pytest.raises(
                ValueError, match=r"InvertibleConv1x1 expected each of 0\.\.C-1 exactly once; got"
            ):
                other.load_state_dict(state)
        else:
            other.load_state_dict(state)
            assert torch.equal(other.order, layer.order)
