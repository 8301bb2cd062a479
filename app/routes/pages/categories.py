"""The categories that a page offers."""

from pathlib import Path

from app.access import Caller
from flows.fastflow import bundle


def categories(models: Path, caller: Caller, *, active: bool = False) -> list[str]:
    """Categories of a models folder that the caller's key is for; reads directories.

    Args:
        models: the models folder.
        caller: who looks.
        active: only those of which a version serves.
    """
    return [
        name
        for name in bundle.categories(models)
        if (caller.categories is None or name in caller.categories)
        and (not active or bundle.active_version(models, name) is not None)
    ]
