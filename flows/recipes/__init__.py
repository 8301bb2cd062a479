"""Published flows, built from the parts of `flows`.

`nice`, `real_nvp`, `glow`, `neural_spline` and `maf` take vectors (D,) or images (C, H, W). `planar` and
`radial` take vectors only. The five have the same further arguments:

    levels     L of integer data 0 ... L - 1, which are dequantised and mapped to the real line by a logit.
               Samples are integers, and the mean log-density over draws of the noise is a lower bound of the
               integers' log-probability. None for real numbers.
    alpha      see `flows.Logit`.
    context    K of a context (N, K), or 0. Maps (N, K, H, W) would not fit squeezed images.
"""

from flows.recipes.glow import glow
from flows.recipes.maf import maf
from flows.recipes.nice import nice
from flows.recipes.planar import planar, radial
from flows.recipes.realnvp import real_nvp
from flows.recipes.spline import neural_spline

__all__ = ["glow", "maf", "neural_spline", "nice", "planar", "radial", "real_nvp"]
