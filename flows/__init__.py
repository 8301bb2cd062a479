"""Normalizing flows: invertible maps with exact log-determinants, in both directions.

A flow maps complicated data to simple latents by z = f(x). The change of variables gives the exact density:

    log p(x) = log p_Z(f(x)) + log |det df/dx|.

`forward` maps data to latents, `inverse` maps latents to data. Each returns the log-determinant of its own
direction, of shape (N,). This package needs torch only. `flows.recipes` builds published flows from these
parts. `flows.fastflow` is the anomaly detector; import it separately.

docs/tutorials/flow-library.md teaches the library in ten steps; docs/reference/flows.md lists every name.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.library import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import a public name of the library, or `__all__`."""
    library = importlib.import_module("flows.library")
    if name in library.__all__ or name == "__all__":
        return getattr(library, name)
    raise AttributeError(f"module 'flows' has no attribute {name!r}")
