"""Versions of what features, weights and scores depend on."""

import importlib.metadata
import platform

_LIBRARIES = ("flowgauge", "torch", "timm", "numpy", "opencv-python-headless", "pillow")


def library_versions() -> dict[str, str]:
    """Versions of what features and scores depend on."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
