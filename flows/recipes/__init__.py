"""The published flows, built from the parts of `flows`.

`nice`, `real_nvp`, `glow`, `neural_spline` and `maf` take vectors (D,) or images (C, H, W), and a context
(N, K); `planar` and `radial` take vectors alone. With `levels`, the former are flows over integers 0 ...
levels - 1: their first layers bring those to real numbers, the mean of their log-densities over draws of
noise is a lower bound of the integers' log-probability, and their samples are integers.
"""

from flows.recipes.glow import glow
from flows.recipes.maf import maf
from flows.recipes.nice import nice
from flows.recipes.planar import planar, radial
from flows.recipes.realnvp import real_nvp
from flows.recipes.spline import neural_spline

__all__ = ["glow", "maf", "neural_spline", "nice", "planar", "radial", "real_nvp"]
