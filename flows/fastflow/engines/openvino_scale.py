"""A coupling's scale by sums and products, for graphs that are computed in bfloat16.

Where a CPU has instructions for bfloat16, an exponential of a tanh takes it several times as long as the
convolution that it follows. Here it is a polynomial of a clipped number, raised to a power.
"""

import math
from typing import Any, Final

import openvino.opset13 as op

from flows.fastflow.engines.openvino_parts import constant

# tanh u is the sum of these times (u / _END)^(2i + 1) up to |u| = _END, and beyond it what that is there.
# Found by Lawson's iteration (C. L. Lawson 1961), with errors weighted by where the u of fitted flows lie:
# the largest ratio to min(.0015 (|u| + .05) exp(2.2 max(|u| - .5, 0)), .012), beyond |u| = 3.2 to .002, is
# the least for these and this end. Most u lie within .5 of 0, where it is off by .2 % at most; up to 1.5 it
# is off by .9 %, anywhere by .0093, and far out, where some flows have a hundredth of theirs, by .0017.
_TANH: Final = (2.5958596, -5.48171265, 9.93292963, -9.73680744, 3.68807628)
_END: Final = 2.6
# What the power may be off, as a log-scale.
_OFF: Final = 6e-3
# Larger ones multiply what tanh is off; no preset has one.
_LARGEST_BOUND: Final = 4.0


def exp_tanh(a: Any, bound: float) -> Any | None:
    """exp(c tanh(a / 2)), or None where c is so large that it would be too far off.

    With y = s / n, exp(s) is (1 + y + y^2 / 2)^n, and 1 + y + y^2 / 2 is ((1 + y)^2 + 1) / 2. OpenVINO
    computes all of it in one pass, in float32, with the product that takes it, and rounds what comes out:
    were y rounded, the power would be off n times as much.

    Args:
        a: (N, C, H, W).
        bound: c.
    """
    power = power_of(bound)
    if power is None:
        return None
    end = 2 * _END
    clipped = op.clamp(a, -end, end)
    square = op.multiply(clipped, clipped)
    root = math.sqrt(0.5)
    coefficients = [root * bound / power * k / end ** (2 * i + 1) for i, k in enumerate(_TANH)]
    polynomial = constant(coefficients[-1])
    for k in coefficients[-2::-1]:
        polynomial = op.add(op.multiply(polynomial, square), constant(k))
    shifted = op.add(op.multiply(polynomial, clipped), constant(root))  # (1 + y) / sqrt(2)
    scale = op.add(op.multiply(shifted, shifted), constant(0.5))
    for _ in range(power.bit_length() - 1):
        scale = op.multiply(scale, scale)
    return scale


def power_of(bound: float) -> int | None:
    """n for log-scales up to a bound c, a power of two; None for bounds that are too large."""
    if bound > _LARGEST_BOUND:
        return None
    n = 4
    while off_by_power(bound, n) > _OFF:
        n *= 2
    return n


def off_by_power(bound: float, n: int) -> float:
    """How far the logarithm of (1 + y + y^2 / 2)^n is from s = n y, at most, for |s| up to a bound."""
    y = -bound / n  # on the other side it is less
    return abs(n * math.log1p(y + y * y / 2) - n * y)
