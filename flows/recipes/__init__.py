"""The published flows, built from the parts of `flows`; each takes vectors (D,) or images (C, H, W).

With `levels`, a recipe is a flow over integers 0 ... levels - 1: its first layers bring those to real
numbers, its densities are a lower bound of the integers' log-probability, and its samples are integers.
"""

from flows.recipes.glow import glow
from flows.recipes.maf import maf
from flows.recipes.nice import nice
from flows.recipes.planar import planar, radial
from flows.recipes.realnvp import real_nvp
from flows.recipes.spline import neural_spline

__all__ = ["glow", "maf", "neural_spline", "nice", "planar", "radial", "real_nvp"]
