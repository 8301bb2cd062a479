"""`flowgauge compare`: a version beside the active one, on the same test images."""

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import Data, Device, Models, PrecisionName, ProgressFormat

Category = Annotated[str, typer.Option(help="Name of the category's folder.")]
Version = Annotated[str, typer.Option(help="Version that may become active.")]
Against = Annotated[str | None, typer.Option(help="Version to compare with; by default the active one.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads.", min=1, show_default="torch's choice")]


def compare(
    data: Data,
    category: Category,
    version: Version,
    against: Against = None,
    models: Models = Path("models"),
    threads: Threads = None,
    device: Device = "auto",
    precision: PrecisionName = "float32",
    progress: ProgressFormat = "text",
) -> None:
    """Compare a version with the active one before it becomes active: decisions that change.

    Both decide on the test images that neither was fitted to, by their own calibration. Printed are the good
    images that each rejects, the defective ones that each passes, and the images on which they differ.

    Example: flowgauge compare --data mvtec --category bottle --version 20261202T084506-144bed
    """
    from flows.fastflow.bundle.models_folder import resolve

    for name in (against, version):  # before torch is loaded, which takes seconds
        resolve(models, category, name)

    import torch

    from flows.fastflow.progress import write_event
    from training.evaluation.versions import compare_versions, comparison_lines
    from training.terminal.progress import open_progress

    if threads is not None:
        torch.set_num_threads(threads)
    reporter = open_progress(progress, {"evaluate": 1})
    comparison = compare_versions(
        data,
        category,
        version=version,
        against=against,
        models=models,
        device=device,
        precision=precision,
        progress=reporter,
    )
    for line in comparison_lines(comparison):
        reporter.say(line)
    if progress == "json":
        write_event("result", **comparison)
