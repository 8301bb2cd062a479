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
from flows.recipes.events import expect_counts, expect_event, expect_halves, flow_of
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
    """NICE (Dinh et al. 2015, arXiv 1410.8516, section 5.1): density estimation by volume-preserving layers.

    Additive couplings over even and odd elements take turns; one scaling per element follows, and a logistic
    prior. The defaults are the paper's of MNIST. Images are taken as vectors. Before the couplings `ActNorm`
    standardises every element: the paper scales or whitens its data beforehand, and Adam moves the scaling by
    about one learning rate per step, which is slow for a pixel that is almost constant.

    >>> import torch
    >>> nice((8,), hidden=(32,)).log_prob(torch.zeros(3, 8)).shape
    torch.Size([3])

    Args:
        event_shape: (D,) or (C, H, W), at least two elements.
        couplings: how many; the paper has four, and says that three are the least for every dimension to
            influence every other.
        hidden: widths of the conditioners' layers.
        levels: L of integer data 0 ... L - 1, dequantised and brought to the real line by a logit (the paper
            stays in [0, 1)).
        alpha: of that logit; see `Logit`.
        context: K of a context (N, K), or 0.
    """
    shape = expect_event(event_shape, "nice")
    flat = Flatten(shape)
    features = flat.features
    expect_counts("nice", couplings=couplings)
    expect_halves(features, "nice")
    even_first = [*range(0, features, 2), *range(1, features, 2)]
    steps: list[Transform] = [flat, ActNorm(features), Permutation(even_first)]
    for i in range(couplings):
        halves = Halves(features, swapped=i % 2 == 1)
        network = MLP(halves.conditioning, hidden, halves.transformed, context=context)
        steps.append(Coupling(halves, network, Additive()))
    scaling = Scaling(features)
    # What is standardised starts with the deviation of the logistic prior, pi / sqrt(3).
    nn.init.constant_(scaling.log_scale, math.log(math.pi / math.sqrt(3)))
    steps.append(scaling)
    return flow_of(steps, (features,), levels, alpha=alpha, base=StandardLogistic((features,)))
