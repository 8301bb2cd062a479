"""Two-dimensional target densities with exact values and exact samples.

They allow an absolute measure of a fitted flow: KL(target || flow) is the mean of log p(x) - log q(x) over
fresh samples, and 0 is the optimum. All are normalised and of about unit scale; a test integrates each of
them on a grid.

>>> generator = torch.Generator().manual_seed(0)
>>> target = TARGETS["banana"]
>>> target.log_prob(target.sample(3, generator)).shape
torch.Size([3])
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import ndtr, ndtri

Box = tuple[float, float, float, float]

# Rows per batch: hundreds of components times all rows would fill the memory.
_ROWS = 1024


@dataclass(frozen=True)
class Target(ABC):
    """A density over the plane.

    Attributes:
        box: limits (left, right, bottom, top) that hold nearly all of its mass, for drawings and integrals.
    """

    name: str
    box: Box

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Compute the exact log-density in nats, (N,), at x (N, 2); -inf where the density is 0."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n samples, (n, 2), in torch's default dtype."""


@dataclass(frozen=True)
class Mixture(Target):
    """Equally likely isotropic normals of one common deviation.

    Attributes:
        means: (K, 2).
        deviation: deviation of each normal.
    """

    means: Tensor
    deviation: float

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.cat([self._log_prob(rows) for rows in torch.split(x, _ROWS)])

    def _log_prob(self, x: Tensor) -> Tensor:
        first, second = self.means.to(x).T
        # Differences, not the products of `cdist`, which cancel in single precision.
        square = (x[:, :1] - first).square() + (x[:, 1:] - second).square()  # (N, K)
        constant = math.log(len(first)) + 2 * math.log(self.deviation) + math.log(2 * math.pi)
        return torch.logsumexp(-0.5 * square / self.deviation**2, 1) - constant

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        index = torch.randint(len(self.means), (n,), generator=generator)
        noise = torch.randn(n, 2, generator=generator)
        return self.means.to(noise)[index] + self.deviation * noise


@dataclass(frozen=True)
class Pinwheel(Target):
    """Normals stretched away from the centre, then bent by a rotation that grows with the radius.

    As in Johnson et al. 2016 (arXiv 1603.06277), which rotates by exp of the coordinate along the arm; here
    the angle depends only on the distance from the centre. Such a rotation keeps areas, so the density is
    that of the straight arms at the point rotated back.

    Attributes:
        radius: distance of the arms' means from the centre.
        along, across: deviations along an arm and across it.
        turn: radians of rotation per unit of distance.
    """

    arms: int = 5
    radius: float = 1.6
    along: float = 0.5
    across: float = 0.13
    turn: float = 1.2

    def log_prob(self, x: Tensor) -> Tensor:
        straight = _rotated(x, -self.turn * x.norm(dim=1))
        densities = []
        for arm in range(self.arms):
            y = _rotated(straight, x.new_tensor(-2 * math.pi * arm / self.arms))
            along, across = (y[:, 0] - self.radius) / self.along, y[:, 1] / self.across
            densities.append(-0.5 * (along.square() + across.square()))
        constant = math.log(self.arms) + math.log(2 * math.pi * self.along * self.across)
        return torch.stack(densities).logsumexp(0) - constant

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(n, 2, generator=generator)
        y = torch.stack([self.radius + self.along * noise[:, 0], self.across * noise[:, 1]], 1)
        arm = torch.randint(self.arms, (n,), generator=generator)
        return _rotated(y, 2 * math.pi / self.arms * arm + self.turn * y.norm(dim=1))


@dataclass(frozen=True)
class Rings(Target):
    """Concentric rings with uniform directions and a mixture of normals for the radius.

    p(x) = p(r) / (2 pi r), where every normal of the mixture is truncated at r = 0 and normalised again.

    Attributes:
        radii: radii of the rings, equally likely.
        deviation: deviation of the radius within a ring.
    """

    radii: tuple[float, ...] = (0.8, 1.6, 2.4)
    deviation: float = 0.1

    def log_prob(self, x: Tensor) -> Tensor:
        r: Tensor = x.norm(dim=1)
        radii = x.new_tensor(self.radii)
        standardised = (r[:, None] - radii) / self.deviation  # (N, K)
        kept = ndtr(radii / self.deviation)
        normal = -0.5 * standardised.square() - math.log(self.deviation) - 0.5 * math.log(2 * math.pi)
        radial = torch.logsumexp(normal - kept.log(), 1) - math.log(len(self.radii))
        return radial - math.log(2 * math.pi) - r.log()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        radii = torch.tensor(self.radii, dtype=torch.float64)
        radii = radii[torch.randint(len(self.radii), (n,), generator=generator)]
        u, v = torch.rand(2, n, generator=generator, dtype=torch.float64)
        # By the quantile function of the normal truncated below 0. `rand` never gives 1, whose quantile is
        # infinite.
        lowest = ndtr(-radii / self.deviation)
        r = radii + self.deviation * ndtri(lowest + (1 - lowest) * u)
        angle = 2 * math.pi * v
        x = torch.stack([r * angle.cos(), r * angle.sin()], 1)
        return x.to(torch.get_default_dtype())


@dataclass(frozen=True)
class CheckerBoard(Target):
    """Uniform over the squares of one colour of a board.

    Attributes:
        squares: number along each side, even.
        side: side of a square.
    """

    squares: int = 4
    side: float = 1.0

    def log_prob(self, x: Tensor) -> Tensor:
        cells = (x / self.side + self.squares / 2).floor()  # (N, 2)
        on_board = ((cells >= 0) & (cells < self.squares)).all(1)
        inside = on_board & (cells.sum(1) % 2 == 0)
        area = self.side**2 * self.squares**2 / 2
        return torch.where(inside, x.new_tensor(-math.log(area)), x.new_tensor(-math.inf))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        row = torch.randint(self.squares, (n,), generator=generator)
        column = 2 * torch.randint(self.squares // 2, (n,), generator=generator) + row % 2
        # Double precision, and never on an edge: a rounded sum could fall into the next square, of density 0.
        corner = torch.stack([column, row], 1).double()
        within = torch.rand(n, 2, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        return (self.side * (corner + within - self.squares / 2)).to(torch.get_default_dtype())


@dataclass(frozen=True)
class Banana(Target):
    """A normal sheared along a parabola.

    x_1 ~ N(0, s^2), x_2 = t + b (x_1^2 - s^2), t ~ N(0, d^2), as in Haario et al. 1999 (Adaptive proposal
    distribution for random walk Metropolis algorithm). A shear keeps areas.

    Attributes:
        width: s.
        bend: b.
        deviation: d.
    """

    width: float = 1.5
    bend: float = 0.6
    deviation: float = 0.3

    def log_prob(self, x: Tensor) -> Tensor:
        t = x[:, 1] - self.bend * (x[:, 0].square() - self.width**2)
        square = (x[:, 0] / self.width).square() + (t / self.deviation).square()
        return -0.5 * square - math.log(2 * math.pi * self.width * self.deviation)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(n, 2, generator=generator)
        first = self.width * noise[:, 0]
        second = self.deviation * noise[:, 1] + self.bend * (first.square() - self.width**2)
        return torch.stack([first, second], 1)


@dataclass(frozen=True)
class Funnel(Target):
    """Neal's funnel (Neal 2003, Slice sampling, section 8): x_2 ~ N(0, s^2), x_1 ~ N(0, exp(x_2)).

    The paper has s = 3 and nine dimensions instead of x_1; with a smaller s the whole density is visible.

    Attributes:
        deviation: s.
    """

    deviation: float = 1.5

    def log_prob(self, x: Tensor) -> Tensor:
        square = (x[:, 1] / self.deviation).square() + x[:, 0].square() * (-x[:, 1]).exp()
        return -0.5 * square - 0.5 * x[:, 1] - math.log(2 * math.pi * self.deviation)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.randn(n, 2, generator=generator)
        second = self.deviation * noise[:, 1]
        return torch.stack([noise[:, 0] * (0.5 * second).exp(), second], 1)


def _rotated(x: Tensor, angle: Tensor) -> Tensor:
    """Rotate x, (N, 2), by one angle or by (N,) angles."""
    c, s = angle.cos(), angle.sin()
    return torch.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], 1)


def _ring(count: int, radius: float) -> Tensor:
    angle = 2 * math.pi / count * torch.arange(count, dtype=torch.float64)
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def _grid(side: int, spacing: float) -> Tensor:
    values = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
    return torch.cartesian_prod(values, values)


def _moons(count: int, scale: float) -> Tensor:
    """Sample the two half circles of scikit-learn's `make_moons` in fine steps, around the origin."""
    angle = math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    return scale * torch.cat([upper, -upper])


def _spirals(count: int, turns: float, radius: float) -> Tensor:
    """Sample two arms r = radius theta / theta_max, in steps of about equal length."""
    highest = 2 * math.pi * turns
    lowest = 0.15 * highest
    # The length along the arm grows as theta^2, except near the centre.
    share = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    angle = (lowest**2 + share * (highest**2 - lowest**2)).sqrt()
    arm = radius / highest * angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return torch.cat([arm, -arm])


def _square(half: float) -> Box:
    return (-half, half, -half, half)


_ALL: tuple[Target, ...] = (
    Mixture("eight_gaussians", _square(3.2), _ring(8, 2.0), 0.2),
    Mixture("grid", _square(3.0), _grid(5, 1.0), 0.12),
    Mixture("two_moons", _square(3.2), _moons(200, 1.5), 0.12),
    Mixture("two_spirals", _square(3.6), _spirals(400, 1.75, 3.0), 0.1),
    Pinwheel("pinwheel", _square(4.2)),
    Rings("rings", _square(3.0)),
    CheckerBoard("checkerboard", _square(2.2)),
    Banana("banana", (-7.5, 7.5, -3.0, 22.0)),
    Funnel("funnel", (-40.0, 40.0, -7.0, 7.5)),
)

TARGETS: dict[str, Target] = {target.name: target for target in _ALL}
