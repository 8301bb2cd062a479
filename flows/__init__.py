"""Normalizing flows: invertible maps with exact log-determinants, in both directions.

A flow turns a simple density into a complicated one by a change of variables. With z = f(x),

    log p(x) = log p_Z(f(x)) + log |det df/dx|.

`forward` goes from data to latent, `inverse` from latent to data, and each returns the log-determinant of
its own direction with shape (N,). This package needs torch alone; the anomaly detector built on it is
`flows.fastflow`, which is imported only by those who need it.
"""

from flows.clamp import SoftClamp
from flows.compose import Compose
from flows.conditioners import ConvNet
from flows.coupling import AffineCoupling
from flows.distributions import StandardNormal, standard_normal_log_prob
from flows.flow import Flow
from flows.partition import Halves
from flows.permutation import Permutation
from flows.scaling import ChannelAffine
from flows.transform import Transform

__all__ = [
    "AffineCoupling",
    "ChannelAffine",
    "Compose",
    "ConvNet",
    "Flow",
    "Halves",
    "Permutation",
    "SoftClamp",
    "StandardNormal",
    "Transform",
    "standard_normal_log_prob",
]
