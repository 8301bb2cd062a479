"""The contract of every transform, as plain functions: each raises AssertionError with what was broken.

test_contract.py applies them to the table of cases.py, test_contract_catches.py to the errors of wrong.py.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from flows import Transform
from tests.flows.cases import Make, Shape

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Setting:
    """What a check is run on.

    Attributes:
        event: shape of one event.
        rows: batch size.
        seed: of parameters and input.
        spread: standard deviation that all parameters are drawn with; None leaves them as made.
    """

    event: Shape
    rows: int = 3
    seed: int = 0
    spread: float | None = 1.0

    def transform(self, make: Make) -> Transform:
        """The transform in double precision and evaluation mode."""
        torch.manual_seed(self.seed)
        transform = make(self.event).double().eval()
        if self.spread is not None:
            with torch.no_grad():
                for parameter in transform.parameters():
                    parameter.normal_(0, self.spread)
        return transform

    def input(self) -> Tensor:
        """A batch, (rows, *event)."""
        generator = torch.Generator().manual_seed(1000 + self.seed)
        return 2 * torch.randn((self.rows, *self.event), dtype=torch.float64, generator=generator)


Direction = Callable[[Tensor], tuple[Tensor, Tensor]]


def directions(transform: Transform) -> Iterator[tuple[str, Direction]]:
    """Both directions with their names."""
    yield "forward", transform.forward
    yield "inverse", transform.inverse


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal to the last bit, NaN included."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())


def jacobian(apply: Direction, x: Tensor, row: int) -> Tensor:
    """The (D, D) matrix of derivatives of one row's output by the same row's input."""

    def one(event: Tensor) -> Tensor:
        return apply(torch.cat([x[:row], event[None], x[row + 1 :]]))[0][row].flatten()

    matrix: Tensor = torch.func.jacrev(one)(x[row])
    return matrix.flatten(1)


def check_outputs(make: Make, setting: Setting) -> None:
    """Shape, dtype and device of both results follow the input, which is left as it was."""
    for dtype in (torch.float64, torch.float32):
        transform, x = setting.transform(make).to(dtype), setting.input().to(dtype)
        for name, apply in directions(transform):
            before = x.clone()
            y, log_det = apply(x)
            assert same(x, before), f"{name} changed its input"
            assert y.shape == x.shape, f"{name}: {tuple(x.shape)} became {tuple(y.shape)}"
            assert log_det.shape == (len(x),), f"{name}: log_det has shape {tuple(log_det.shape)}"
            for what, result in (("output", y), ("log_det", log_det)):
                assert result.dtype == dtype, f"{name}: {what} is {result.dtype} for {dtype}"
                assert result.device == x.device, f"{name}: {what} is on {result.device}"
                assert result.isfinite().all(), f"{name}: {what} is not finite"


def check_device(make: Make, setting: Setting) -> None:
    """Everything happens on the input's device: torch's meta device stands in for any other."""
    transform, x = setting.transform(make).to("meta"), setting.input().to("meta")
    for name, apply in directions(transform):
        y, log_det = apply(x)
        assert y.device == log_det.device == x.device, f"{name}: {y.device} and {log_det.device}"
        assert (y.shape, log_det.shape) == (x.shape, (len(x),)), f"{name}: shapes differ there"


def condition(matrix: Tensor) -> tuple[float, float]:
    """The largest singular value over the smallest, and 1 over the smallest."""
    values = torch.linalg.svdvals(matrix.detach())
    largest, smallest = values[0].item(), max(values[-1].item(), torch.finfo(torch.float64).tiny)
    return largest / smallest, 1 / smallest


def check_log_det(make: Make, setting: Setting) -> None:
    """log_det equals log |det| of the autograd Jacobian, row by row, in both directions."""
    transform, x = setting.transform(make), setting.input()
    z, _ = transform.forward(x)
    for (name, apply), at in zip(directions(transform), (x, z.detach()), strict=True):
        _, log_det = apply(at)
        for row in range(len(at)):
            matrix = jacobian(apply, at, row)
            error = (log_det.expand(len(at))[row] - torch.linalg.slogdet(matrix).logabsdet).abs().item()
            # What elimination loses on an ill-conditioned matrix is no fault of log_det.
            assert error <= 1e-8 + EPS * condition(matrix)[0], f"{name}: log_det is off by {error:.3g}"


def check_rows(make: Make, setting: Setting) -> None:
    """A row's result does not depend on the other rows of the batch."""
    transform, x = setting.transform(make), setting.input()
    for name, apply in directions(transform):
        y, log_det = apply(x)
        for row in range(len(x)):
            alone, alone_log_det = apply(x[row : row + 1])
            torch.testing.assert_close(alone[0], y[row], msg=f"{name}: a row depends on its batch")
            torch.testing.assert_close(
                alone_log_det.sum(),
                log_det.expand(len(x))[row],
                msg=f"{name}: log_det depends on its batch",
            )


def check_round_trip(make: Make, setting: Setting) -> None:
    """Forth and back is the identity, within a constant x eps x the Jacobian's condition number."""
    transform, x = setting.transform(make), setting.input()
    there, back_again = directions(transform)
    for (name, apply), (_, undo) in ((there, back_again), (back_again, there)):
        y, log_det = apply(x)
        back, undone = undo(y)
        for row in range(len(x)):
            number, gain = condition(jacobian(apply, x, row))
            if number * EPS > 1e-2:
                continue  # double precision leaves no digit to compare
            # y is off by eps of its size at least, which the way back magnifies by up to `gain`.
            bound = 100 * EPS * (gain * y[row].norm().item() + number * x[row].norm().item())
            error = (back[row] - x[row]).norm().item()
            assert error <= bound, f"{name} and back is off by {error:.3g}, more than {bound:.3g}"
            rest = (log_det[row] + undone[row]).abs().item()
            assert rest <= 1e-8 + 1000 * bound, f"{name} and back leaves {rest:.3g} of the log_dets"


def check_wrong_shapes(make: Make, setting: Setting) -> None:
    """Input of a wrong shape is refused in words."""
    channels, *size = setting.event
    wrong: list[Shape] = [(channels,), (2, channels + 1, *size), (2, channels, 3), (2, channels, 3, 3, 3)]
    wrong += [(2, channels - 1, *size)] if channels > 1 else []
    transform = setting.transform(make)
    for name, apply in directions(transform):
        for shape in wrong:
            try:
                apply(torch.zeros(shape, dtype=torch.float64))
            except ValueError as error:
                message = str(error)
                assert "expected" in message, f"{name}: the message does not say what was expected"
                assert f"got {shape}" in message, f"{name}: the message does not say what came"
                assert str(channels) in message, f"{name}: the message does not name the channels"
            except Exception as error:
                raise AssertionError(f"{name}: {shape} raised {type(error).__name__}") from error
            else:
                raise AssertionError(f"{name} took the shape {shape}")


def check_reload(make: Make, setting: Setting) -> None:
    """A state dict carries everything: a transform made elsewhere gives equal bits after loading it."""
    transform, x = setting.transform(make), setting.input()
    other = Setting(setting.event, setting.rows, setting.seed + 1, setting.spread).transform(make)
    other.load_state_dict(copy.deepcopy(transform.state_dict()))
    for (name, one), (_, two) in zip(directions(transform), directions(other), strict=True):
        for a, b in zip(one(x), two(x), strict=True):
            assert same(a, b), f"{name} differs after a state_dict was loaded"


def check_eval_keeps_state(make: Make, setting: Setting) -> None:
    """In evaluation mode nothing is remembered, and the same input gives the same bits."""
    transform, x = setting.transform(make), setting.input()
    before = copy.deepcopy(transform.state_dict())
    for name, apply in directions(transform):
        first = apply(x)
        apply(5 * x + 1)
        for a, b in zip(first, apply(x), strict=True):
            assert same(a, b), f"{name} gives another result the second time"
    after = transform.state_dict()
    assert before.keys() == after.keys(), "evaluation changed the names in the state"
    assert all(same(before[key], after[key]) for key in before), "evaluation changed the state"


def check_gradients(make: Make, setting: Setting) -> None:
    """Gradients of output and log_det, by input and by every parameter, equal finite differences."""
    if setting.spread is not None and setting.spread > 1:
        setting = replace(setting, spread=1.0)  # curvature that finite differences cannot follow
    transform, x = setting.transform(make), setting.input()
    names = [name for name, _ in transform.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in transform.parameters()]

    class Both(nn.Module):
        def __init__(self, direction: str) -> None:
            super().__init__()
            self.inner, self.direction = transform, direction

        def forward(self, at: Tensor) -> tuple[Tensor, Tensor]:
            y, log_det = getattr(self.inner, self.direction)(at)
            # The unused 0 x keeps a constant log_det in the graph that gradcheck asks for.
            return y, log_det + 0 * at.sum()

    for direction in ("forward", "inverse"):
        module = Both(direction)

        def apply(at: Tensor, *parameters: Tensor, module: nn.Module = module) -> tuple[Tensor, ...]:
            state = {f"inner.{name}": value for name, value in zip(names, parameters, strict=True)}
            result: tuple[Tensor, ...] = torch.func.functional_call(module, state, (at,))
            return result

        try:
            gradcheck(apply, (x.requires_grad_(), *values), fast_mode=True)
        except RuntimeError as error:  # GradcheckError is one
            raise AssertionError(f"{direction}: {error}") from error


Check = Callable[[Make, Setting], None]

CHECKS: dict[str, Check] = {
    "outputs": check_outputs,
    "device": check_device,
    "log_det": check_log_det,
    "rows": check_rows,
    "round_trip": check_round_trip,
    "wrong_shapes": check_wrong_shapes,
    "reload": check_reload,
    "eval_keeps_state": check_eval_keeps_state,
    "gradients": check_gradients,
}
