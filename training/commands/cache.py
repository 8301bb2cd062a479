"""`flowgauge data cache`: what cached features take, and how to take it back."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer


def cache(
    runs: Annotated[
        Path, typer.Option(envvar="FLOWGAUGE_RUNS", help="The folder that `train` was given as --runs.")
    ] = Path("runs"),
    keep: Annotated[
        float | None,
        typer.Option(
            help="Remove the least recently used until the rest takes no more GiB than this.", min=0
        ),
    ] = None,
) -> None:
    """List the cached features of training pictures, the least recently used first; with --keep, remove some.

    What a training uses at the moment stays. What is removed is computed again when it is needed.

    Example: flowgauge data cache --keep 5
    """
    from training.cache_folder import GIB, CacheFolder

    folder = CacheFolder(runs / "features", 0)
    removed = [] if keep is None else folder.prune(round(keep * GIB))
    entries = folder.entries()
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).astimezone()
        busy = ", in use" if entry.in_use else ""
        typer.echo(f"{entry.nbytes / GIB:8.3f} GiB  {entry.path}  last used {used:%Y-%m-%d %H:%M}{busy}")
    total = sum(entry.nbytes for entry in entries)
    typer.echo(f"{total / GIB:8.3f} GiB in {folder.folder}, caches: {len(entries)}")
    if removed:
        typer.echo(f"{sum(e.nbytes for e in removed) / GIB:8.3f} GiB removed, caches: {len(removed)}")
