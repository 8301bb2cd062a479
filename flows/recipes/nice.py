"""NICE: additive couplings and one scaling."""

import math
from collections.abc import Sequence

from torch import nn

from flows.actnorm import ActNorm
from flows.conditioners import MLP
from flows.coupling import Coupling
from flows.distributions import StandardLogistic
from flows.flow import Flow
from flows.laws import Additive
from flows.partition import Halves
from flows.permutation import Permutation
from flows.recipes.shared import build_flow, require_counts, require_two_channels, validate_event_shape
from flows.reshape import Flatten
from flows.scaling import Scaling
from flows.transform import Transform


def nice(
    event_shape: Sequence[int],
    *,
    couplings: int = 4,
    hidden: Sequence[int] = (1000, 1000, 1000, 1000, 1000),
    levels: int | None = None,
    alpha: float = 0.05,
    context: int = 0,
) -> Flow:
    """Build NICE (Dinh et al. 2015, arXiv 1410.8516, section 5.1).

    Additive couplings over even and odd elements in turn, one scaling per element, and a logistic prior. The
    defaults are the paper's for MNIST. Images become vectors. An `ActNorm` standardises every element first,
    where the paper scales or whitens its data in [0, 1) beforehand: Adam moves the scaling by about one
    learning rate per step, which is slow for an almost constant pixel.

    >>> import torch
    >>> nice((8,), hidden=(32,)).log_prob(torch.zeros(3, 8)).shape
    torch.Size([3])

    Args:
        event_shape: (D,) or (C, H, W), at least two elements.
        couplings: number of couplings. The paper has four; with three or more, every dimension influences
            every other.
        hidden: widths of the conditioners' hidden layers.
        levels, alpha, context: see `flows.recipes`.
    """
    shape = validate_event_shape(event_shape, "nice")
    flat = Flatten(shape)
    features = flat.features
    require_counts("nice", couplings=couplings)
    require_two_channels(features, "nice")
    even_first = [*range(0, features, 2), *range(1, features, 2)]
    steps: list[Transform] = [flat, ActNorm(features), Permutation(even_first)]
    for i in range(couplings):
        halves = Halves(features, swapped=i % 2 == 1)
        network = MLP(halves.conditioning, hidden, halves.transformed, context=context)
        steps.append(Coupling(halves, network, Additive()))
    scaling = Scaling(features)
    # Standardised data start with the deviation of the logistic prior, pi / sqrt(3).
    nn.init.constant_(scaling.log_scale, math.log(math.pi / math.sqrt(3)))
    steps.append(scaling)
    return build_flow(steps, (features,), levels, alpha=alpha, base=StandardLogistic((features,)))
