"""How well scores and maps tell good parts from defective ones.

Of images: `image_auroc`, `image_average_precision`, `image_f1_max`. Of pixels: `PixelMetrics`, which takes
one map after another and holds none, and `pixel_figures` for maps that are in memory anyway.
docs/reference/metrics.md defines each of them.
"""

from training.metrics.errors import MetricError
from training.metrics.images import F1Max, image_auroc, image_average_precision, image_f1_max
from training.metrics.pixels import PixelCurves, PixelFigures, PixelMetrics, pixel_figures

__all__ = [
    "F1Max",
    "MetricError",
    "PixelCurves",
    "PixelFigures",
    "PixelMetrics",
    "image_auroc",
    "image_average_precision",
    "image_f1_max",
    "pixel_figures",
]
