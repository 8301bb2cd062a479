"""Published flows, built from the parts of `flows`.

`nice`, `real_nvp`, `glow`, `neural_spline` and `maf` take vectors (D,) or images (C, H, W), and a context (N,
K). With `levels` they model integers 0 ... levels - 1: samples are integers, and the mean log-density over
draws of the dequantisation noise is a lower bound of the integers' log-probability. `planar` and `radial`
take vectors only.
"""

from flows.recipes.glow import glow
from flows.recipes.maf import maf
from flows.recipes.nice import nice
from flows.recipes.planar import planar, radial
from flows.recipes.realnvp import real_nvp
from flows.recipes.spline import neural_spline

__all__ = ["glow", "maf", "neural_spline", "nice", "planar", "radial", "real_nvp"]
