"""The categories that a page offers."""

from pathlib import Path

from app.access import Caller
from flows.fastflow import models_folder


def categories(models: Path, caller: Caller, *, active: bool = False) -> list[str]:
    """Categories of a models folder that the caller's key is for; reads directories.

    Args:
        models: the models folder.
        caller: who looks.
        active: only those of which a version serves.
    """
    return [
        name
        for name in models_folder.categories(models)
        if (caller.categories is None or name in caller.categories)
        and (not active or models_folder.active_version(models, name) is not None)
    ]
