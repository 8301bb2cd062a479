"""Small images for reports."""

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 280  # pixels of the longer side
_QUALITY = 80


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize an image, (height, width, 3), to the size of reports."""
    scale = _SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return np.asarray(small, dtype=np.uint8)


def encode_webp(rgb: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(
        ".webp", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _QUALITY]
    )
    if not done:
        raise RuntimeError(f"OpenCV could not encode an image of shape {rgb.shape} as WebP")
    return data.tobytes()
