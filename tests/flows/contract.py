"""Contract of every transform, as functions that raise AssertionError with what is broken.

test_contract.py applies them to the table of cases.py, test_contract_catches.py to the faults of faults.py.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from flows import Transform
from tests.flows.cases import Case, Shape

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Setting:
    """Size and seed of the data and parameters of a check.

    Parameters are drawn with a deviation of `spread`; None leaves them as initialised.
    """

    event: Shape
    rows: int = 3
    seed: int = 0
    spread: float | None = 1.0

    def transform(self, case: Case) -> Transform:
        # Not torch.manual_seed: it records the stack for each device, which takes longer than the transform.
        torch.default_generator.manual_seed(self.seed)
        transform = case.make(self.event).double().eval()
        if self.spread is not None:
            with torch.no_grad():
                for parameter in transform.parameters():
                    parameter.normal_(0, self.spread * case.spread)
        return transform

    def data(self, case: Case) -> Tensor:
        """Draw a batch within the transform's domain, (rows, *event)."""
        return case.domain(self._noise(1000, self.event))

    def latents(self, case: Case) -> Tensor:
        """Draw a batch of latents, (rows, *latent event)."""
        return self._noise(2000, case.latent(self.event))

    def _noise(self, seed: int, event: Shape) -> Tensor:
        generator = torch.Generator().manual_seed(seed + self.seed)
        return 2 * torch.randn((self.rows, *event), dtype=torch.float64, generator=generator)


Apply = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Direction:
    """Direction of a transform, its inverse and its input."""

    name: str
    apply: Apply
    undo: Apply
    at: Tensor


def directions(transform: Transform, case: Case, setting: Setting) -> Iterator[Direction]:
    yield Direction("forward", transform.forward, transform.inverse, setting.data(case))
    yield Direction("inverse", transform.inverse, transform.forward, setting.latents(case))


def same(a: Tensor, b: Tensor) -> bool:
    """Return True if two tensors are equal to the last bit, NaN included."""
    alike = (a.shape, a.dtype) == (b.shape, b.dtype)
    return alike and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def jacobian(apply: Apply, x: Tensor) -> Tensor:
    """Compute the Jacobian of every row, (rows, D, D).

    Every row is repeated once per output, so one backward pass gives all derivatives. `check_rows` checks
    that rows do not depend on each other.
    """
    rows, size = len(x), x[:1].numel()
    copies = x.detach().repeat_interleave(size, 0).requires_grad_()
    y = apply(copies)[0]
    each = torch.eye(size, dtype=x.dtype).repeat(rows, 1).view_as(y)
    [matrices] = torch.autograd.grad(y, copies, each, materialize_grads=True)
    return matrices.reshape(rows, size, size)


@lru_cache(maxsize=2)
def jacobians(case: Case, setting: Setting, name: str) -> Tensor:
    """Compute the Jacobians of one direction; cached, because several checks need them."""
    [direction] = [d for d in directions(setting.transform(case), case, setting) if d.name == name]
    return jacobian(direction.apply, direction.at)


def check_outputs(case: Case, setting: Setting) -> None:
    """Check shape, dtype and device of both results, and that the input is unchanged."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        transform = setting.transform(case).to(dtype)
        for direction in directions(transform, case, setting):
            x = direction.at.to(dtype)
            if direction.name == "forward":
                middle = case.domain(x.new_zeros(()))
                x = middle + 0.9 * (x - middle)  # stay inside after rounding
            shape = case.latent(setting.event) if direction.name == "forward" else setting.event
            before = x.clone()
            y, log_det = direction.apply(x)
            assert same(x, before), f"{direction.name} changed its input"
            assert y.shape == (len(x), *shape), f"{direction.name}: {tuple(x.shape)} became {tuple(y.shape)}"
            assert log_det.shape == (len(x),), f"{direction.name}: log_det has shape {tuple(log_det.shape)}"
            for what, result in (("output", y), ("log_det", log_det)):
                assert result.dtype == dtype, f"{direction.name}: {what} is {result.dtype} for {dtype}"
                assert result.device == x.device, f"{direction.name}: {what} is on {result.device}"
                assert result.isfinite().all(), f"{direction.name}: {what} is not finite in {dtype}"
            assert log_det.stride() == (1,), f"{direction.name}: rows of log_det share their memory"


def check_device(case: Case, setting: Setting) -> None:
    """Check that all work happens on the input's device, with the meta device in place of a GPU."""
    transform = setting.transform(case).to("meta")
    for direction in directions(transform, case, setting):
        x = direction.at.to("meta")
        y, log_det = direction.apply(x)
        shape = case.latent(setting.event) if direction.name == "forward" else setting.event
        assert y.device == log_det.device == x.device, f"{direction.name}: {y.device} and {log_det.device}"
        assert (y.shape, log_det.shape) == ((len(x), *shape), (len(x),)), (
            f"{direction.name}: shapes differ there"
        )


def check_autocast(case: Case, setting: Setting) -> None:
    """Check the dtypes and the round trip under autocast.

    The round trip must be as exact as without autocast, except in a few rows where a conditioner's input
    rounds to another bfloat16 number on the way back. These have the error of bfloat16, and are so rare that
    the check needs many rows.
    """
    if setting.spread is not None:
        setting = replace(setting, spread=min(setting.spread, 0.3))  # single precision has few digits
    if setting.rows:
        setting = replace(setting, rows=256)
    transform = setting.transform(case).float()
    for direction in directions(transform, case, setting):
        x = direction.at.float()
        off = []
        for enabled in (False, True):
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                y, log_det = direction.apply(x)
                back, undone = direction.undo(y)
            for result in (y, log_det, back, undone):
                assert result.dtype == x.dtype, f"{direction.name}: under autocast there is a {result.dtype}"
            off.append([_norms(back - x), (log_det + undone).abs()])
        for plainly, rounded, size in zip(*off, (_norms(x), log_det.abs()), strict=True):
            if not len(x):
                continue
            near = 1e-4 * (1 + size) + 10 * plainly.max()
            share = (rounded > near).double().mean().item()
            assert share <= 0.05, (
                f"{direction.name} and back is off by more than {near.min():.3g} in {share:.0%}"
            )
            # bfloat16 has 16 bits less than float32, whose errors show how errors grow.
            beyond = (rounded - 2**16 * (2**-24 * (1 + size) + plainly.max())).max().item()
            assert beyond <= 0, (
                f"{direction.name} and back is off by {beyond:.3g} more than bfloat16's rounding"
            )


def _norms(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms


def condition(matrix: Tensor) -> tuple[float, float]:
    """Return the condition number, and 1 over the smallest singular value."""
    values = torch.linalg.svdvals(matrix.detach())
    largest, smallest = values[0].item(), max(values[-1].item(), torch.finfo(torch.float64).tiny)
    return largest / smallest, 1 / smallest


def check_log_det(case: Case, setting: Setting) -> None:
    """Check log_det against log |det| of the autograd Jacobian, in both directions."""
    transform = setting.transform(case)
    tried = [
        (direction, jacobians(case, setting, direction.name))
        for direction in directions(transform, case, setting)
    ]
    z = transform.forward(setting.data(case))[0].detach()
    back = Direction("inverse of what it gave", transform.inverse, transform.forward, z)
    tried.append((back, jacobian(back.apply, z)))
    for direction, matrices in tried:
        _, log_det = direction.apply(direction.at)
        for row, matrix in enumerate(matrices):
            error = (
                (log_det.expand(len(direction.at))[row] - torch.linalg.slogdet(matrix).logabsdet).abs().item()
            )
            # Allow for the error of slogdet on an ill-conditioned matrix.
            assert error <= 1e-8 + EPS * condition(matrix)[0], (
                f"{direction.name}: log_det is off by {error:.3g}"
            )


def check_rows(case: Case, setting: Setting) -> None:
    """Check that a row's result does not depend on the other rows of the batch."""
    transform = setting.transform(case)
    for direction in directions(transform, case, setting):
        x = direction.at
        y, log_det = direction.apply(x)
        for row in range(len(x)):
            alone, alone_log_det = direction.apply(x[row : row + 1])
            torch.testing.assert_close(alone[0], y[row], msg=f"{direction.name}: a row depends on its batch")
            torch.testing.assert_close(
                alone_log_det.sum(),
                log_det.expand(len(x))[row],
                msg=f"{direction.name}: log_det depends on its batch",
            )


def check_vmap(case: Case, setting: Setting) -> None:
    """Check that torch.func's vmap and jacrev agree with batches and autograd."""
    transform = setting.transform(case)
    for direction in directions(transform, case, setting):
        if not len(direction.at):
            continue

        def one(event: Tensor, apply: Apply = direction.apply) -> tuple[Tensor, Tensor]:
            y, log_det = apply(event[None])
            return y[0], log_det[0]

        for a, b in zip(direction.apply(direction.at), torch.func.vmap(one)(direction.at), strict=True):
            torch.testing.assert_close(a, b, msg=f"{direction.name}: vmap differs")
        matrix = torch.func.jacrev(one)(direction.at[0])[0].reshape(
            direction.at[0].numel(), direction.at[0].numel()
        )
        torch.testing.assert_close(
            matrix, jacobians(case, setting, direction.name)[0], msg=f"{direction.name}: jacrev differs"
        )


def check_compiles(case: Case, setting: Setting) -> None:
    """Check that torch.compile traces the transform as one graph with equal results."""
    transform = setting.transform(case)
    for direction in directions(transform, case, setting):
        torch.compiler.reset()
        compiled = torch.compile(direction.apply, backend="eager", fullgraph=True)
        with torch.no_grad():
            for a, b in zip(direction.apply(direction.at), compiled(direction.at), strict=True):
                torch.testing.assert_close(a, b, msg=f"{direction.name}: compiled differs")


def check_round_trip(case: Case, setting: Setting) -> None:
    """Check the round trip, within a constant times eps times the Jacobian's condition number."""
    transform = setting.transform(case)
    for direction in directions(transform, case, setting):
        x = direction.at
        y, log_det = direction.apply(x)
        back, undone = direction.undo(y)
        for row, matrix in enumerate(jacobians(case, setting, direction.name)):
            if matrix.isinf().any():
                continue  # beyond the range of double precision
            assert matrix.isfinite().all(), f"{direction.name} has no derivative at a point"
            number, gain = condition(matrix)
            if number * EPS > 1e-2:
                continue  # double precision leaves no digits to compare
            # y has a relative error of eps at least, which the inverse magnifies by up to `gain`.
            bound = 100 * EPS * (gain * y[row].norm().item() + number * x[row].norm().item())
            error = (back[row] - x[row]).norm().item()
            assert error <= bound, f"{direction.name} and back is off by {error:.3g}, more than {bound:.3g}"
            rest = (log_det[row] + undone[row]).abs().item()
            assert rest <= 1e-8 + 1000 * bound, f"{direction.name} and back leaves {rest:.3g} of the log_dets"


def check_wrong_shapes(case: Case, setting: Setting) -> None:
    """Check that input of a wrong shape is rejected with a clear message."""
    if case.any_shape:
        return
    transform = setting.transform(case)
    for training in (False, True):
        before = {k: v.clone() for k, v in transform.state_dict().items()}
        _check_refusals(transform.train(training), case, setting)
        for k, v in transform.state_dict().items():
            assert torch.equal(v, before[k]), f"{k} was changed by rejected input"


def _check_refusals(transform: Transform, case: Case, setting: Setting) -> None:
    for name, apply, event in (
        ("forward", transform.forward, setting.event),
        ("inverse", transform.inverse, case.latent(setting.event)),
    ):
        channels, *size = event
        wrong: list[Shape] = [(channels,), (2, channels + 1, *size), (2, channels, 3), (2, channels, 3, 3, 3)]
        wrong += [(2, channels - 1, *size)] if channels > 1 else []
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


def check_reload(case: Case, setting: Setting) -> None:
    """Check that a loaded state_dict gives equal bits, and survives further training."""
    transform = setting.transform(case)
    other = replace(setting, seed=setting.seed + 1).transform(case)
    other.load_state_dict(copy.deepcopy(transform.state_dict()))
    for one, two in zip(directions(transform, case, setting), directions(other, case, setting), strict=True):
        for a, b in zip(one.apply(one.at), two.apply(one.at), strict=True):
            assert same(a, b), f"{one.name} differs after a state_dict was loaded"
    # Parameters initialised by a first batch must survive loading and further training.
    x = setting.data(case)
    x = torch.cat([x, case.domain(2 * x + 1)])  # a first batch of one value is rejected
    transform.train().forward(x)
    other.load_state_dict(copy.deepcopy(transform.state_dict()))
    expected = transform.eval().forward(x)
    other.train().forward(case.domain(5 * x + 1))
    for a, b in zip(expected, other.eval().forward(x), strict=True):
        assert same(a, b), "a forward pass in training mode changed the loaded state"


def check_eval_keeps_state(case: Case, setting: Setting) -> None:
    """Check that evaluation mode changes no state, and that equal input gives equal bits."""
    transform = setting.transform(case)
    before = copy.deepcopy(transform.state_dict())
    for direction in directions(transform, case, setting):
        first = direction.apply(direction.at)
        direction.apply(case.domain(5 * direction.at + 1))
        for a, b in zip(first, direction.apply(direction.at), strict=True):
            assert same(a, b), f"{direction.name} gives another result the second time"
    after = transform.state_dict()
    assert before.keys() == after.keys(), "evaluation changed the names in the state"
    assert all(same(before[key], after[key]) for key in before), "evaluation changed the state"


def check_gradients(case: Case, setting: Setting) -> None:
    """Check the gradients by input and parameters against finite differences."""
    if setting.spread is not None and setting.spread > 1:
        setting = replace(setting, spread=1.0)  # finite differences cannot follow more curvature
    transform = setting.transform(case)
    parameters = dict(transform.named_parameters())

    class Both(nn.Module):
        def __init__(self, direction: str) -> None:
            super().__init__()
            self.inner, self.direction = transform, direction

        def forward(self, at: Tensor) -> tuple[Tensor, Tensor]:
            y, log_det = getattr(self.inner, self.direction)(at)
            # Adding 0 x keeps a constant log_det in the graph, as gradcheck requires.
            return y, log_det + 0 * at.sum()

    for direction in directions(transform, case, setting):
        module = Both(direction.name)
        sizes = [direction.at.numel(), *(p.numel() for p in parameters.values())]

        def apply(flat: Tensor, module: nn.Module = module, x: Tensor = direction.at) -> tuple[Tensor, ...]:
            at, *values = flat.split(sizes)  # type: ignore[no-untyped-call]  # noqa: B023  (called at once)
            named = zip(parameters.items(), values, strict=True)
            state = {f"inner.{name}": value.view_as(p) for (name, p), value in named}
            result: tuple[Tensor, ...] = torch.func.functional_call(module, state, (at.view_as(x),))
            return result

        # Input and parameters as one vector: a random direction through all of them costs one derivative.
        flat = torch.cat([direction.at.flatten(), *(p.detach().flatten() for p in parameters.values())])
        try:
            gradcheck(apply, (flat.requires_grad_(),), fast_mode=True)
        except RuntimeError as error:  # GradcheckError is one
            raise AssertionError(f"{direction.name}: {error}") from error


Check = Callable[[Case, Setting], None]

CHECKS: dict[str, Check] = {
    "outputs": check_outputs,
    "device": check_device,
    "autocast": check_autocast,
    "log_det": check_log_det,
    "rows": check_rows,
    "vmap": check_vmap,
    "round_trip": check_round_trip,
    "wrong_shapes": check_wrong_shapes,
    "reload": check_reload,
    "eval_keeps_state": check_eval_keeps_state,
    "gradients": check_gradients,
}
