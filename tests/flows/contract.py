"""The contract of every transform, as plain functions: each raises AssertionError with what was broken.

test_contract.py applies them to the table of cases.py, test_contract_catches.py to the errors of wrong.py.
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
    """What a check is run on.

    All parameters are drawn with a deviation of `spread`; None leaves them as made.
    """

    event: Shape
    rows: int = 3
    seed: int = 0
    spread: float | None = 1.0

    def transform(self, case: Case) -> Transform:
        # torch.manual_seed notes the stack for each kind of device, which takes longer than what is made.
        torch.default_generator.manual_seed(self.seed)
        transform = case.make(self.event).double().eval()
        if self.spread is not None:
            with torch.no_grad():
                for parameter in transform.parameters():
                    parameter.normal_(0, self.spread * case.spread)
        return transform

    def data(self, case: Case) -> Tensor:
        """A batch within the transform's domain, (rows, *event)."""
        return case.domain(self._noise(1000, self.event))

    def latents(self, case: Case) -> Tensor:
        """A batch of latents, (rows, *latent event)."""
        return self._noise(2000, case.latent(self.event))

    def _noise(self, seed: int, event: Shape) -> Tensor:
        generator = torch.Generator().manual_seed(seed + self.seed)
        return 2 * torch.randn((self.rows, *event), dtype=torch.float64, generator=generator)


Direction = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Way:
    """One direction of a transform, with what to try it on."""

    name: str
    apply: Direction
    undo: Direction
    at: Tensor


def ways(transform: Transform, case: Case, setting: Setting) -> Iterator[Way]:
    yield Way("forward", transform.forward, transform.inverse, setting.data(case))
    yield Way("inverse", transform.inverse, transform.forward, setting.latents(case))


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal to the last bit, NaN included."""
    alike = (a.shape, a.dtype) == (b.shape, b.dtype)
    return alike and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def jacobian(apply: Direction, x: Tensor) -> Tensor:
    """The (rows, D, D) derivatives of each row's output by the same row's input.

    Every row stands in one batch as often as it has outputs, for one pass back to take all derivatives: that
    a row does not depend on the others is for `check_rows`.
    """
    rows, size = len(x), x[:1].numel()
    copies = x.detach().repeat_interleave(size, 0).requires_grad_()
    y = apply(copies)[0]
    each = torch.eye(size, dtype=x.dtype).repeat(rows, 1).view_as(y)
    [matrices] = torch.autograd.grad(y, copies, each, materialize_grads=True)
    return matrices.reshape(rows, size, size)


@lru_cache(maxsize=2)
def jacobians(case: Case, setting: Setting, name: str) -> Tensor:
    """Those of every row, in the direction of that name; kept, for several checks ask for the same ones."""
    [way] = [way for way in ways(setting.transform(case), case, setting) if way.name == name]
    return jacobian(way.apply, way.at)


def check_outputs(case: Case, setting: Setting) -> None:
    """Shape, dtype and device of both results follow the input, which is left as it was."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        transform = setting.transform(case).to(dtype)
        for way in ways(transform, case, setting):
            x = way.at.to(dtype)
            if way.name == "forward":
                middle = case.domain(x.new_zeros(()))
                x = middle + 0.9 * (x - middle)  # rounding stays inside
            shape = case.latent(setting.event) if way.name == "forward" else setting.event
            before = x.clone()
            y, log_det = way.apply(x)
            assert same(x, before), f"{way.name} changed its input"
            assert y.shape == (len(x), *shape), f"{way.name}: {tuple(x.shape)} became {tuple(y.shape)}"
            assert log_det.shape == (len(x),), f"{way.name}: log_det has shape {tuple(log_det.shape)}"
            for what, result in (("output", y), ("log_det", log_det)):
                assert result.dtype == dtype, f"{way.name}: {what} is {result.dtype} for {dtype}"
                assert result.device == x.device, f"{way.name}: {what} is on {result.device}"
                assert result.isfinite().all(), f"{way.name}: {what} is not finite in {dtype}"
            assert log_det.stride() == (1,), f"{way.name}: rows of log_det share their memory"


def check_device(case: Case, setting: Setting) -> None:
    """Everything happens on the input's device: torch's meta device stands in for any other."""
    transform = setting.transform(case).to("meta")
    for way in ways(transform, case, setting):
        x = way.at.to("meta")
        y, log_det = way.apply(x)
        shape = case.latent(setting.event) if way.name == "forward" else setting.event
        assert y.device == log_det.device == x.device, f"{way.name}: {y.device} and {log_det.device}"
        assert (y.shape, log_det.shape) == ((len(x), *shape), (len(x),)), f"{way.name}: shapes differ there"


def check_autocast(case: Case, setting: Setting) -> None:
    """Under autocast both results keep the input's dtype, and forth and back is as near as without.

    But for a few rows, in which the same number was rounded to another one of bfloat16 on the way back: these
    are as near as bfloat16 is. They are so rare that it takes many rows to meet one.
    """
    if setting.spread is not None:
        setting = replace(setting, spread=min(setting.spread, 0.3))  # single precision has few digits
    if setting.rows:
        setting = replace(setting, rows=256)
    transform = setting.transform(case).float()
    for way in ways(transform, case, setting):
        x = way.at.float()
        off = []
        for enabled in (False, True):
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                y, log_det = way.apply(x)
                back, undone = way.undo(y)
            for result in (y, log_det, back, undone):
                assert result.dtype == x.dtype, f"{way.name}: under autocast there is a {result.dtype}"
            off.append([_norms(back - x), (log_det + undone).abs()])
        for plainly, rounded, size in zip(*off, (_norms(x), log_det.abs()), strict=True):
            if not len(x):
                continue
            near = 1e-4 * (1 + size) + 10 * plainly.max()
            share = (rounded > near).double().mean().item()
            assert share <= 0.05, f"{way.name} and back is off by more than {near.min():.3g} in {share:.0%}"
            # bfloat16 has 16 bits less than single precision, whose errors tell how errors grow on the way.
            beyond = (rounded - 2**16 * (2**-24 * (1 + size) + plainly.max())).max().item()
            assert beyond <= 0, f"{way.name} and back is off by {beyond:.3g} more than bfloat16's rounding"


def _norms(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms


def condition(matrix: Tensor) -> tuple[float, float]:
    """The largest singular value over the smallest, and 1 over the smallest."""
    values = torch.linalg.svdvals(matrix.detach())
    largest, smallest = values[0].item(), max(values[-1].item(), torch.finfo(torch.float64).tiny)
    return largest / smallest, 1 / smallest


def check_log_det(case: Case, setting: Setting) -> None:
    """log_det equals log |det| of the autograd Jacobian, row by row, in both directions."""
    transform = setting.transform(case)
    tried = [(way, jacobians(case, setting, way.name)) for way in ways(transform, case, setting)]
    z = transform.forward(setting.data(case))[0].detach()
    back = Way("inverse of what it gave", transform.inverse, transform.forward, z)
    tried.append((back, jacobian(back.apply, z)))
    for way, matrices in tried:
        _, log_det = way.apply(way.at)
        for row, matrix in enumerate(matrices):
            error = (log_det.expand(len(way.at))[row] - torch.linalg.slogdet(matrix).logabsdet).abs().item()
            # What elimination loses on an ill-conditioned matrix is no fault of log_det.
            assert error <= 1e-8 + EPS * condition(matrix)[0], f"{way.name}: log_det is off by {error:.3g}"


def check_rows(case: Case, setting: Setting) -> None:
    """A row's result does not depend on the other rows of the batch."""
    transform = setting.transform(case)
    for way in ways(transform, case, setting):
        x = way.at
        y, log_det = way.apply(x)
        for row in range(len(x)):
            alone, alone_log_det = way.apply(x[row : row + 1])
            torch.testing.assert_close(alone[0], y[row], msg=f"{way.name}: a row depends on its batch")
            torch.testing.assert_close(
                alone_log_det.sum(),
                log_det.expand(len(x))[row],
                msg=f"{way.name}: log_det depends on its batch",
            )


def check_vmap(case: Case, setting: Setting) -> None:
    """torch.func's vmap and jacrev give what the batch and autograd give."""
    transform = setting.transform(case)
    for way in ways(transform, case, setting):
        if not len(way.at):
            continue

        def one(event: Tensor, apply: Direction = way.apply) -> tuple[Tensor, Tensor]:
            y, log_det = apply(event[None])
            return y[0], log_det[0]

        for a, b in zip(way.apply(way.at), torch.func.vmap(one)(way.at), strict=True):
            torch.testing.assert_close(a, b, msg=f"{way.name}: vmap differs")
        matrix = torch.func.jacrev(one)(way.at[0])[0].reshape(way.at[0].numel(), way.at[0].numel())
        torch.testing.assert_close(
            matrix, jacobians(case, setting, way.name)[0], msg=f"{way.name}: jacrev differs"
        )


def check_compiles(case: Case, setting: Setting) -> None:
    """torch.compile traces it whole, and the graph gives the same."""
    transform = setting.transform(case)
    for way in ways(transform, case, setting):
        torch.compiler.reset()
        compiled = torch.compile(way.apply, backend="eager", fullgraph=True)
        with torch.no_grad():
            for a, b in zip(way.apply(way.at), compiled(way.at), strict=True):
                torch.testing.assert_close(a, b, msg=f"{way.name}: compiled differs")


def check_round_trip(case: Case, setting: Setting) -> None:
    """Forth and back is the identity, within a constant x eps x the Jacobian's condition number."""
    transform = setting.transform(case)
    for way in ways(transform, case, setting):
        x = way.at
        y, log_det = way.apply(x)
        back, undone = way.undo(y)
        for row, matrix in enumerate(jacobians(case, setting, way.name)):
            if matrix.isinf().any():
                continue  # beyond the range of double precision
            assert matrix.isfinite().all(), f"{way.name} has no derivative at a point"
            number, gain = condition(matrix)
            if number * EPS > 1e-2:
                continue  # double precision leaves no digit to compare
            # y is off by eps of its size at least, which the way back magnifies by up to `gain`.
            bound = 100 * EPS * (gain * y[row].norm().item() + number * x[row].norm().item())
            error = (back[row] - x[row]).norm().item()
            assert error <= bound, f"{way.name} and back is off by {error:.3g}, more than {bound:.3g}"
            rest = (log_det[row] + undone[row]).abs().item()
            assert rest <= 1e-8 + 1000 * bound, f"{way.name} and back leaves {rest:.3g} of the log_dets"


def check_wrong_shapes(case: Case, setting: Setting) -> None:
    """Input of a wrong shape is refused in words."""
    if case.any_shape:
        return
    transform = setting.transform(case)
    for training in (False, True):
        before = {k: v.clone() for k, v in transform.state_dict().items()}
        _check_refusals(transform.train(training), case, setting)
        for k, v in transform.state_dict().items():
            assert torch.equal(v, before[k]), f"{k} was changed by input that is refused"


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
    """A state dict carries everything: a transform made elsewhere gives equal bits after loading it."""
    transform = setting.transform(case)
    other = replace(setting, seed=setting.seed + 1).transform(case)
    other.load_state_dict(copy.deepcopy(transform.state_dict()))
    for one, two in zip(ways(transform, case, setting), ways(other, case, setting), strict=True):
        for a, b in zip(one.apply(one.at), two.apply(one.at), strict=True):
            assert same(a, b), f"{one.name} differs after a state_dict was loaded"
    # What a first batch has set stays, when training goes on after loading.
    x = setting.data(case)
    x = torch.cat([x, case.domain(2 * x + 1)])  # a first batch of one value is refused
    transform.train().forward(x)
    other.load_state_dict(copy.deepcopy(transform.state_dict()))
    expected = transform.eval().forward(x)
    other.train().forward(case.domain(5 * x + 1))
    for a, b in zip(expected, other.eval().forward(x), strict=True):
        assert same(a, b), "training on changed what was loaded, before any optimiser did"


def check_eval_keeps_state(case: Case, setting: Setting) -> None:
    """In evaluation mode nothing is remembered, and the same input gives the same bits."""
    transform = setting.transform(case)
    before = copy.deepcopy(transform.state_dict())
    for way in ways(transform, case, setting):
        first = way.apply(way.at)
        way.apply(case.domain(5 * way.at + 1))
        for a, b in zip(first, way.apply(way.at), strict=True):
            assert same(a, b), f"{way.name} gives another result the second time"
    after = transform.state_dict()
    assert before.keys() == after.keys(), "evaluation changed the names in the state"
    assert all(same(before[key], after[key]) for key in before), "evaluation changed the state"


def check_gradients(case: Case, setting: Setting) -> None:
    """Gradients of output and log_det, by input and by every parameter, equal finite differences."""
    if setting.spread is not None and setting.spread > 1:
        setting = replace(setting, spread=1.0)  # curvature that finite differences cannot follow
    transform = setting.transform(case)
    parameters = dict(transform.named_parameters())

    class Both(nn.Module):
        def __init__(self, direction: str) -> None:
            super().__init__()
            self.inner, self.direction = transform, direction

        def forward(self, at: Tensor) -> tuple[Tensor, Tensor]:
            y, log_det = getattr(self.inner, self.direction)(at)
            # The unused 0 x keeps a constant log_det in the graph that gradcheck asks for.
            return y, log_det + 0 * at.sum()

    for way in ways(transform, case, setting):
        module = Both(way.name)
        sizes = [way.at.numel(), *(p.numel() for p in parameters.values())]

        def apply(flat: Tensor, module: nn.Module = module, x: Tensor = way.at) -> tuple[Tensor, ...]:
            at, *values = flat.split(sizes)  # type: ignore[no-untyped-call]  # noqa: B023  (called at once)
            named = zip(parameters.items(), values, strict=True)
            state = {f"inner.{name}": value.view_as(p) for (name, p), value in named}
            result: tuple[Tensor, ...] = torch.func.functional_call(module, state, (at.view_as(x),))
            return result

        # Input and parameters as one vector: a random direction through all of them costs one derivative.
        flat = torch.cat([way.at.flatten(), *(p.detach().flatten() for p in parameters.values())])
        try:
            gradcheck(apply, (flat.requires_grad_(),), fast_mode=True)
        except RuntimeError as error:  # GradcheckError is one
            raise AssertionError(f"{way.name}: {error}") from error


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
