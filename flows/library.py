"""The public names of `flows`, which imports them on first use: torch takes seconds."""

from flows.actnorm import ActNorm
from flows.autoregressive import MaskedAutoregressive
from flows.clamp import LearnedClamp, SigmoidScale, SoftClamp, SoftplusScale
from flows.compose import Compose, Inverse
from flows.conditioners import MLP, ConvNet, DepthwiseNet, GlowNet, ResNet
from flows.conv1x1 import InvertibleConv1x1
from flows.coupling import Coupling
from flows.dequantize import Logit, UniformDequantization
from flows.distributions import (
    DiagonalNormal,
    Distribution,
    StandardLogistic,
    StandardNormal,
    standard_normal_log_prob,
)
from flows.flow import Flow
from flows.laws import Additive, Affine, Law, RationalQuadraticSpline
from flows.multiscale import FactorOut
from flows.partition import Checkerboard, Halves, Partition
from flows.permutation import Permutation
from flows.planar import Planar
from flows.radial import Radial
from flows.reshape import Flatten, Squeeze
from flows.scaling import ChannelAffine, Scaling
from flows.transform import Transform

__all__ = [
    "MLP",
    "ActNorm",
    "Additive",
    "Affine",
    "ChannelAffine",
    "Checkerboard",
    "Compose",
    "ConvNet",
    "Coupling",
    "DepthwiseNet",
    "DiagonalNormal",
    "Distribution",
    "FactorOut",
    "Flatten",
    "Flow",
    "GlowNet",
    "Halves",
    "Inverse",
    "InvertibleConv1x1",
    "Law",
    "LearnedClamp",
    "Logit",
    "MaskedAutoregressive",
    "Partition",
    "Permutation",
    "Planar",
    "Radial",
    "RationalQuadraticSpline",
    "ResNet",
    "Scaling",
    "SigmoidScale",
    "SoftClamp",
    "SoftplusScale",
    "Squeeze",
    "StandardLogistic",
    "StandardNormal",
    "Transform",
    "UniformDequantization",
    "standard_normal_log_prob",
]
