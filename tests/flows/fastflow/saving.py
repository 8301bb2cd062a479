"""Images as files in memory."""

import io
from typing import Any

from PIL import Image


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file that Pillow makes of an image, in a format such as PNG, with its options."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
